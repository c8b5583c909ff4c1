/* Huffman decoding of JPEG scans: sequential and progressive (ITU-T T.81, Annexes C, F and G). */
#include "native.h"

#include <string.h>

const uint8_t vz_zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
                               41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
                               30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

int vz_huffman_build(vz_huffman *table, const uint8_t counts[16], const uint8_t *values, size_t total)
{
    int32_t code = 0, index = 0;
    int length, i;
    size_t sum = 0;

    for (i = 0; i < 16; i++)
        sum += counts[i];
    if (sum > 256 || sum != total)
        return VZ_BAD_TABLE;
    memset(table, 0, sizeof *table);
    memcpy(table->values, values, total);
    for (length = 1; length <= 16; length++) {
        table->offset[length] = index - code;
        for (i = 0; i < counts[length - 1]; i++, code++, index++) {
            if (code >= (1 << length))
                return VZ_BAD_TABLE;
            if (length <= VZ_LOOK_BITS) {
                int spare = VZ_LOOK_BITS - length, j;
                int symbol = table->values[index], run = symbol >> 4, size = symbol & 15;
                for (j = 0; j < (1 << spare); j++) {
                    int at = (int)(code << spare) + j;
                    table->look[at] = (uint16_t)(length << 8 | symbol);
                    if (size && size <= spare) {
                        int value = (j >> (spare - size)) & ((1 << size) - 1);
                        if (value < (1 << (size - 1)))
                            value -= (1 << size) - 1;
                        table->fast[at] = value * 65536 + (run << 8 | (length + size));
                    }
                }
            }
        }
        table->limit[length] = code << (16 - length);
        code <<= 1;
    }
    return VZ_OK;
}

/* The next bits stand at the top of `bits`. Past the end of the data zeros are delivered and counted in `padding`;
 * once fewer than that many bits are left, some of them have been used. */
typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;
    int left, padding;
} reader;

static void refill(reader *r)
{
    if (r->end - r->at >= 8) {
        const uint8_t *p = r->at;
        uint64_t word = (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32 |
                        (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | (uint64_t)p[7];
        /* no byte of the word is 0xFF: no byte of its complement is zero */
        if (!((~word - UINT64_C(0x0101010101010101)) & word & UINT64_C(0x8080808080808080))) {
            int bytes = (63 - r->left) >> 3;
            r->bits |= word >> r->left;
            r->at += bytes;
            r->left += bytes * 8;
            return;
        }
    }
    while (r->left <= 56) {
        uint64_t byte = 0;
        if (r->at < r->end && *r->at != 0xFF) {
            byte = *r->at++;
        } else if (r->end - r->at >= 2 && r->at[1] == 0) {
            byte = 0xFF;
            r->at += 2;
        } else {
            r->padding += 8;
        }
        r->bits |= byte << (56 - r->left);
        r->left += 8;
    }
}

static void need(reader *r, int count)
{
    if (r->left < count)
        refill(r);
}

static void skip(reader *r, int count)
{
    r->bits <<= count;
    r->left -= count;
}

static int32_t take(reader *r, int count) /* 1..16, already needed */
{
    int32_t value = (int32_t)(r->bits >> (64 - count));
    skip(r, count);
    return value;
}

static int32_t take_signed(reader *r, int size)
{
    int32_t value = take(r, size);
    return value < (1 << (size - 1)) ? value - (1 << size) + 1 : value;
}

static int overrun(const reader *r)
{
    return r->padding > r->left;
}

static int symbol(reader *r, const vz_huffman *table) /* -1: no such code; 16 bits already needed */
{
    int entry = table->look[r->bits >> (64 - VZ_LOOK_BITS)];
    int32_t code;
    int length;

    if (entry) {
        skip(r, entry >> 8);
        return entry & 255;
    }
    code = (int32_t)(r->bits >> 48);
    for (length = VZ_LOOK_BITS + 1; length <= 16; length++)
        if (code < table->limit[length]) {
            skip(r, length);
            return table->values[((code >> (16 - length)) + table->offset[length]) & 255];
        }
    return -1;
}

static int dc_difference(reader *r, const vz_huffman *table, int32_t *difference)
{
    int size;

    need(r, 32);
    size = symbol(r, table);
    if (size < 0)
        return VZ_BAD_CODE;
    if (size > 11)
        return VZ_BAD_VALUE;
    *difference = size ? take_signed(r, size) : 0;
    return VZ_OK;
}

static int decode_sequential(reader *r, const vz_component *c, int32_t *dc, int16_t *block)
{
    int32_t difference;
    int k, status = dc_difference(r, c->dc, &difference);

    if (status)
        return status;
    *dc += difference;
    if (*dc < -32768 || *dc > 32767)
        return VZ_BAD_VALUE;
    block[0] = (int16_t)*dc;
    for (k = 1; k < 64;) {
        int32_t fast;
        int code, run, size;
        need(r, 32);
        fast = c->ac->fast[r->bits >> (64 - VZ_LOOK_BITS)];
        if (fast) {
            k += (fast >> 8) & 15;
            if (k > 63)
                return VZ_BAD_VALUE;
            skip(r, fast & 255);
            block[vz_zigzag[k++]] = (int16_t)((fast - (fast & 0xFFFF)) / 65536);
            continue;
        }
        code = symbol(r, c->ac);
        if (code < 0)
            return VZ_BAD_CODE;
        run = code >> 4;
        size = code & 15;
        if (size == 0) {
            if (run != 15)
                break;
            k += 16;
            continue;
        }
        k += run;
        if (k > 63 || size > 10)
            return VZ_BAD_VALUE;
        block[vz_zigzag[k++]] = (int16_t)take_signed(r, size);
    }
    return VZ_OK;
}

static int decode_dc(reader *r, const vz_component *c, const vz_scan *scan, int32_t *dc, int16_t *block)
{
    if (scan->ah) {
        need(r, 1);
        if (take(r, 1))
            block[0] = (int16_t)(block[0] | 1 << scan->al);
    } else {
        int32_t difference, value;
        int status = dc_difference(r, c->dc, &difference);
        if (status)
            return status;
        *dc += difference;
        if (*dc < -32768 || *dc > 32767)
            return VZ_BAD_VALUE;
        value = *dc * (1 << scan->al);
        if (value < -32768 || value > 32767)
            return VZ_BAD_VALUE;
        block[0] = (int16_t)value;
    }
    return VZ_OK;
}

static int decode_ac_first(reader *r, const vz_component *c, const vz_scan *scan, int32_t *eobrun, int16_t *block)
{
    int k;

    if (*eobrun > 0) {
        --*eobrun;
        return VZ_OK;
    }
    for (k = scan->ss; k <= scan->se;) {
        int code, run, size;
        need(r, 32);
        code = symbol(r, c->ac);
        if (code < 0)
            return VZ_BAD_CODE;
        run = code >> 4;
        size = code & 15;
        if (size == 0) {
            if (run != 15) {
                *eobrun = (1 << run) - 1;
                if (run)
                    *eobrun += take(r, run);
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        if (k > scan->se || size + scan->al > 10)
            return VZ_BAD_VALUE;
        block[vz_zigzag[k++]] = (int16_t)(take_signed(r, size) * (1 << scan->al));
    }
    return VZ_OK;
}

static void correct(reader *r, int16_t *value, int unit)
{
    need(r, 1);
    if (take(r, 1))
        *value = (int16_t)(*value + (*value > 0 ? unit : -unit));
}

static int decode_ac_refine(reader *r, const vz_component *c, const vz_scan *scan, int32_t *eobrun, int16_t *block)
{
    int unit = 1 << scan->al, k = scan->ss;

    if (*eobrun == 0) {
        for (; k <= scan->se; k++) {
            int code, run, value = 0;
            need(r, 32);
            code = symbol(r, c->ac);
            if (code < 0)
                return VZ_BAD_CODE;
            run = code >> 4;
            if (code & 15) {
                if ((code & 15) != 1)
                    return VZ_BAD_VALUE;
                value = take(r, 1) ? unit : -unit;
            } else if (run != 15) {
                *eobrun = 1 << run;
                if (run)
                    *eobrun += take(r, run);
                break;
            }
            for (; k <= scan->se; k++) {
                int16_t *coefficient = &block[vz_zigzag[k]];
                if (*coefficient)
                    correct(r, coefficient, unit);
                else if (--run < 0)
                    break;
            }
            if (value) {
                if (k > scan->se)
                    return VZ_BAD_VALUE;
                block[vz_zigzag[k]] = (int16_t)value;
            }
        }
    }
    if (*eobrun > 0) {
        for (; k <= scan->se; k++)
            if (block[vz_zigzag[k]])
                correct(r, &block[vz_zigzag[k]], unit);
        --*eobrun;
    }
    return VZ_OK;
}

/* The next marker at or after `at`; RSTn, stuffed and fill bytes are passed where `restarts` is 0. */
static const uint8_t *next_marker(const uint8_t *at, const uint8_t *end, int restarts)
{
    while (end - at >= 2) {
        at = memchr(at, 0xFF, (size_t)(end - at));
        if (!at || end - at < 2)
            return end;
        if (at[1] != 0 && at[1] != 0xFF && (restarts || at[1] < 0xD0 || at[1] > 0xD7))
            return at;
        at += at[1] == 0xFF ? 1 : 2;
    }
    return end;
}

typedef struct {
    reader r;
    int32_t dc[VZ_MAX_COMPONENTS];
    int32_t eobrun;
    int32_t to_restart;
    int next_restart;
    int left_over;
} decoder;

static int restart(decoder *d)
{
    const uint8_t *marker = next_marker(d->r.at, d->r.end, 1), *p;
    int whole;

    if (marker == d->r.end || marker[1] == 0xD9)
        return VZ_SHORT;
    /* Some encoders leave a byte or two. More of them mean that this interval was read wrongly: what has been decoded of
     * it is not the picture. */
    whole = (d->r.left - d->r.padding) / 8;
    for (p = d->r.at; p < marker; p++)
        whole += *p != 0xFF;
    if (whole > 2)
        return VZ_BAD_RESTART;
    d->left_over |= whole > 0;
    if (marker[1] != 0xD0 + d->next_restart)
        return VZ_BAD_RESTART;
    d->next_restart = (d->next_restart + 1) & 7;
    d->r.at = marker + 2;
    d->r.bits = 0;
    d->r.left = d->r.padding = 0;
    memset(d->dc, 0, sizeof d->dc);
    d->eobrun = 0;
    return VZ_OK;
}

static int decode_block(decoder *d, const vz_component *c, int index, const vz_scan *scan, int16_t *block)
{
    int status;

    if (!scan->progressive)
        status = decode_sequential(&d->r, c, &d->dc[index], block);
    else if (scan->ss == 0)
        status = decode_dc(&d->r, c, scan, &d->dc[index], block);
    else if (scan->ah == 0)
        status = decode_ac_first(&d->r, c, scan, &d->eobrun, block);
    else
        status = decode_ac_refine(&d->r, c, scan, &d->eobrun, block);
    return overrun(&d->r) ? VZ_SHORT : status;
}

int vz_valid_component(const vz_component *c)
{
    return c->h >= 1 && c->h <= 4 && c->v >= 1 && c->v <= 4 && c->real_rows >= 1 && c->real_cols >= 1 &&
           c->real_rows <= c->block_rows && c->real_cols <= c->block_cols;
}

int vz_decode_scan(const uint8_t *data, size_t size, size_t *position, const vz_component *components, int count,
                   const vz_scan *scan)
{
    decoder d;
    int32_t rows, cols, row, col;
    int i, status = VZ_OK;

    if (count < 1 || count > VZ_MAX_COMPONENTS || *position > size || scan->restart < 0)
        return VZ_BAD_ARGUMENT;
    if (scan->ss < 0 || scan->se > 63 || scan->ss > scan->se || scan->al < 0 || scan->al > 13 ||
        (scan->ss > 0 && count > 1) || (scan->progressive && scan->ss == 0 && scan->se != 0))
        return VZ_BAD_ARGUMENT;
    for (i = 0; i < count; i++) {
        const vz_component *c = &components[i];
        int wants_dc = scan->ss == 0 && scan->ah == 0, wants_ac = scan->se > 0;
        if (!vz_valid_component(c) || (wants_dc && !c->dc) || (wants_ac && !c->ac))
            return VZ_BAD_ARGUMENT;
        if (count > 1 && ((int64_t)scan->mcu_rows * c->v > c->block_rows || (int64_t)scan->mcu_cols * c->h > c->block_cols))
            return VZ_BAD_ARGUMENT;
    }
    memset(&d, 0, sizeof d);
    d.r.at = data + *position;
    d.r.end = data + size;
    rows = count > 1 ? scan->mcu_rows : components[0].real_rows;
    cols = count > 1 ? scan->mcu_cols : components[0].real_cols;
    d.to_restart = scan->restart;
    for (row = 0; row < rows && !status; row++) {
        for (col = 0; col < cols && !status; col++) {
            if (scan->restart && d.to_restart-- == 0) {
                status = restart(&d);
                if (status)
                    break;
                d.to_restart = scan->restart - 1;
            }
            if (count == 1) {
                const vz_component *c = components;
                status = decode_block(&d, c, 0, scan, c->coefficients + ((size_t)row * c->block_cols + col) * 64);
                continue;
            }
            for (i = 0; i < count && !status; i++) {
                const vz_component *c = &components[i];
                int x, y;
                for (y = 0; y < c->v && !status; y++)
                    for (x = 0; x < c->h && !status; x++) {
                        size_t at = ((size_t)row * c->v + y) * c->block_cols + (size_t)col * c->h + x;
                        status = decode_block(&d, c, i, scan, c->coefficients + at * 64);
                    }
            }
        }
    }
    *position = (size_t)(next_marker(d.r.at, d.r.end, 0) - data);
    return status || !d.left_over ? status : VZ_LEFT_OVER;
}
