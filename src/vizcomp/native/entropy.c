/* Huffman decoding and encoding of JPEG scans: sequential and progressive (ITU-T T.81, Annexes C, F, G and K.2). */
#include "native.h"

#include <stdlib.h>
#include <string.h>

const uint8_t vz_zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
                               41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
                               30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

/* ------------------------------------------------------------------------------------------------ decoding */

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

/* The next bits stand at the top of `bits`. Past the end of the data zeros are delivered and counted in `made_up`;
 * once fewer than that many bits are left, some of them have been used. */
typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;
    int left, made_up;
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
            r->made_up += 8;
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
    return r->made_up > r->left;
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
} decoder;

static int restart(decoder *d)
{
    const uint8_t *marker = next_marker(d->r.at, d->r.end, 1), *p;

    if (marker == d->r.end || marker[1] == 0xD9)
        return VZ_SHORT;
    /* Whole bytes left over mean that this interval was read wrongly: what has been decoded of it is not the picture. */
    for (p = d->r.at; p < marker; p++)
        if (*p != 0xFF)
            return VZ_BAD_RESTART;
    if (d->r.left - d->r.made_up >= 8)
        return VZ_BAD_RESTART;
    if (marker[1] != 0xD0 + d->next_restart)
        return VZ_BAD_RESTART;
    d->next_restart = (d->next_restart + 1) & 7;
    d->r.at = marker + 2;
    d->r.bits = 0;
    d->r.left = d->r.made_up = 0;
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

static int valid_component(const vz_component *c)
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
        if (!valid_component(c) || (wants_dc && !c->dc) || (wants_ac && !c->ac))
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
    return status;
}

/* ------------------------------------------------------------------------------------------------ output bits */

void vz_bytes_free(vz_bytes *out)
{
    free(out->data);
    memset(out, 0, sizeof *out);
}

static int reserve(vz_bytes *out, size_t more)
{
    if (out->capacity - out->size < more) {
        size_t capacity = out->capacity + out->capacity / 2 + more + 4096;
        uint8_t *data = out->failed ? NULL : realloc(out->data, capacity);
        if (!data) {
            out->failed = 1;
            return 0;
        }
        out->data = data;
        out->capacity = capacity;
    }
    return 1;
}

static void put_byte(vz_bytes *out, int value)
{
    if (reserve(out, 1))
        out->data[out->size++] = (uint8_t)value;
}

static void put_word(vz_bytes *out, int value)
{
    put_byte(out, value >> 8);
    put_byte(out, value & 255);
}

static void stuffed(vz_bytes *out, int byte) /* room is reserved */
{
    out->data[out->size++] = (uint8_t)byte;
    if (byte == 0xFF)
        out->data[out->size++] = 0;
}

static void put_bits(vz_bytes *out, uint32_t value, int count) /* 0..32 bits */
{
    out->bits = out->bits << count | value;
    out->pending += count;
    if (out->pending >= 32) {
        uint32_t word = (uint32_t)(out->bits >> (out->pending - 32));
        out->pending -= 32;
        if (!reserve(out, 8))
            return;
        if ((~word - UINT32_C(0x01010101)) & word & UINT32_C(0x80808080)) {
            stuffed(out, word >> 24);
            stuffed(out, word >> 16 & 255);
            stuffed(out, word >> 8 & 255);
            stuffed(out, word & 255);
        } else {
            uint8_t *p = out->data + out->size;
            p[0] = (uint8_t)(word >> 24);
            p[1] = (uint8_t)(word >> 16);
            p[2] = (uint8_t)(word >> 8);
            p[3] = (uint8_t)word;
            out->size += 4;
        }
    }
}

static void pad_bits(vz_bytes *out) /* with ones to a whole byte (F.1.2.3) */
{
    int spare = -out->pending & 7;

    put_bits(out, (1u << spare) - 1, spare);
    while (out->pending > 0 && reserve(out, 2)) {
        out->pending -= 8;
        stuffed(out, (int)(out->bits >> out->pending & 255));
    }
    out->pending = 0;
    out->bits = 0;
}

/* ------------------------------------------------------------------------------------------------ codes */

typedef struct {
    uint32_t frequency[256];
    uint8_t counts[17]; /* [1..16] */
    uint8_t values[256];
    int total;
    uint8_t length[256];
    uint16_t code[256];
} encoder_table;

static void assign_codes(encoder_table *t)
{
    int length, i, index = 0;
    uint32_t code = 0;

    memset(t->length, 0, sizeof t->length);
    for (length = 1; length <= 16; length++, code <<= 1)
        for (i = 0; i < t->counts[length] && index < 256; i++, code++, index++) {
            t->length[t->values[index]] = (uint8_t)length;
            t->code[t->values[index]] = (uint16_t)code;
        }
}

static int by_frequency(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Huffman's code for the frequencies, at most 16 bits long (K.2, figure K.3), the all-ones code left unused: a dummy of
 * weight zero takes the last place. */
static void optimal_code(encoder_table *t)
{
    uint64_t order[257]; /* frequency << 16 | 256 - symbol: ascending, dummy first */
    uint64_t weight[514];
    int16_t parent[514];
    uint8_t depth[514];
    int lengths[258];
    int i, n = 1, leaf = 0, inner, made, maximum = 0;

    order[0] = 0;
    for (i = 0; i < 256; i++)
        if (t->frequency[i])
            order[n++] = (uint64_t)t->frequency[i] << 16 | (uint64_t)(256 - i);
    t->total = n - 1;
    memset(t->counts, 0, sizeof t->counts);
    if (n == 1) {
        assign_codes(t);
        return;
    }
    qsort(order, (size_t)n, sizeof *order, by_frequency);
    for (i = 0; i < n; i++)
        weight[i] = order[i] >> 16;
    inner = made = n; /* leaves 0..n-1 ascending, inner nodes from n on ascending too: two queues */
    for (i = 0; i < n - 1; i++) {
        int pick[2], j;
        for (j = 0; j < 2; j++)
            pick[j] = leaf < n && (inner >= made || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
        weight[made] = weight[pick[0]] + weight[pick[1]];
        parent[pick[0]] = parent[pick[1]] = (int16_t)made;
        made++;
    }
    memset(lengths, 0, sizeof lengths);
    depth[made - 1] = 0;
    for (i = made - 2; i >= 0; i--) {
        depth[i] = (uint8_t)(depth[parent[i]] + 1); /* at most 256: a chain of 257 leaves, depth 256 wraps; see below */
        if (depth[parent[i]] == 255)
            depth[i] = 255;
        if (i < n) {
            lengths[depth[i]]++;
            if (depth[i] > maximum)
                maximum = depth[i];
        }
    }
    for (i = maximum; i > 16; i--)
        while (lengths[i] > 0) {
            int j = i - 2;
            while (j > 0 && lengths[j] == 0)
                j--;
            if (j == 0 || lengths[i] < 2)
                break;
            lengths[i] -= 2;
            lengths[i - 1]++;
            lengths[j + 1] += 2;
            lengths[j]--;
        }
    for (i = maximum > 16 ? 16 : maximum; i > 0 && lengths[i] == 0; i--)
        ;
    if (i > 0)
        lengths[i]--; /* the dummy */
    for (i = 1; i <= 16; i++)
        t->counts[i] = (uint8_t)lengths[i];
    for (i = 0; i < n - 1; i++)
        t->values[i] = (uint8_t)(256 - (order[n - 1 - i] & 0xFFFF));
    assign_codes(t);
}

static uint64_t coded_bits(const encoder_table *t) /* of the symbols and of the table's own entry in DHT */
{
    uint64_t bits = (uint64_t)(17 + t->total) * 8;
    int i;

    for (i = 0; i < 256; i++)
        bits += (uint64_t)t->frequency[i] * t->length[i];
    return bits;
}

static void put_table(vz_bytes *out, const encoder_table *t, int klass, int slot)
{
    int i;

    put_byte(out, klass << 4 | slot);
    for (i = 1; i <= 16; i++)
        put_byte(out, t->counts[i]);
    for (i = 0; i < t->total; i++)
        put_byte(out, t->values[i]);
}

/* Tables K.3 to K.6. */
static const uint8_t standard_dc_counts[2][16] = {{0, 1, 5, 1, 1, 1, 1, 1, 1}, {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
static const uint8_t standard_ac_counts[2][16] = {{0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
                                                  {0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119}};
static const uint8_t standard_ac_values[2][162] = {
    {0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
     0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
     0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
     0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
     0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
     0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
     0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
     0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
     0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA},
    {0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
     0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
     0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
     0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
     0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
     0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
     0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
     0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
     0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA}};

static void standard_code(encoder_table *t, int klass, int set)
{
    int i;

    t->counts[0] = 0;
    memcpy(t->counts + 1, klass ? standard_ac_counts[set] : standard_dc_counts[set], 16);
    t->total = klass ? 162 : 12;
    for (i = 0; i < t->total; i++)
        t->values[i] = klass ? standard_ac_values[set][i] : (uint8_t)i;
    assign_codes(t);
}

void vz_standard_lengths(uint8_t lengths[256])
{
    encoder_table t;

    standard_code(&t, 1, 0);
    memcpy(lengths, t.length, 256);
}

/* ------------------------------------------------------------------------------------------------ encoding */

typedef struct {
    uint16_t magnitude;
    uint8_t position; /* in zigzag order, 1..63 */
    uint8_t kind;     /* the magnitude's category, with NEGATIVE for the sign */
} entry;

#define NEGATIVE 0x80

/* A component's real blocks without their zeros: what every pass over the coefficients reads. A private copy, so that
 * statistics and output agree whatever else happens to the caller's array. */
typedef struct {
    int32_t rows, cols;
    int16_t *dc;      /* rows * cols */
    size_t *start;    /* rows * cols + 1 */
    entry *entries;
} sparse;

static void sparse_free(sparse *s)
{
    free(s->dc);
    free(s->start);
    free(s->entries);
    memset(s, 0, sizeof *s);
}

static int category(uint32_t magnitude)
{
    int size = 0;

    if (magnitude >= 256) {
        size = 8;
        magnitude >>= 8;
    }
    if (magnitude >= 16) {
        size += 4;
        magnitude >>= 4;
    }
    return size + "\0\1\2\2\3\3\3\3\4\4\4\4\4\4\4\4"[magnitude & 15];
}

static int sparse_build(sparse *s, const vz_component *c)
{
    size_t blocks = (size_t)c->real_rows * (size_t)c->real_cols, capacity, size = 0, at = 0;
    uint8_t place[64];
    int32_t row, col;
    int i;

    memset(s, 0, sizeof *s);
    for (i = 0; i < 64; i++)
        place[vz_zigzag[i]] = (uint8_t)i;
    s->rows = c->real_rows;
    s->cols = c->real_cols;
    s->dc = malloc(blocks * sizeof *s->dc);
    s->start = malloc((blocks + 1) * sizeof *s->start);
    capacity = blocks * 4 + 64;
    s->entries = malloc(capacity * sizeof *s->entries);
    if (!s->dc || !s->start || !s->entries)
        return VZ_NO_MEMORY;
    for (row = 0; row < c->real_rows; row++)
        for (col = 0; col < c->real_cols; col++, at++) {
            const int16_t *block = c->coefficients + ((size_t)row * c->block_cols + col) * 64;
            uint64_t found = 0;
            int y;
            if (capacity - size < 64) {
                entry *grown = realloc(s->entries, (capacity + capacity / 2 + 64) * sizeof *grown);
                if (!grown)
                    return VZ_NO_MEMORY;
                s->entries = grown;
                capacity += capacity / 2 + 64;
            }
            s->dc[at] = block[0];
            s->start[at] = size;
            for (y = 0; y < 8; y++) {
                uint64_t words[2];
                memcpy(words, block + 8 * y, 16);
                if (words[0] | words[1])
                    for (i = 8 * y; i < 8 * y + 8; i++)
                        found |= (uint64_t)(block[i] != 0) << place[i];
            }
            found &= ~UINT64_C(1);
            for (i = 1; found >> i; i++) {
                int value;
                while (!(found >> i & 255))
                    i += 8;
                while (!(found >> i & 1))
                    i++;
                value = block[vz_zigzag[i]];
                if (value < -1023 || value > 1023)
                    return VZ_RANGE;
                if (value) {
                    uint32_t magnitude = (uint32_t)(value < 0 ? -value : value);
                    s->entries[size].magnitude = (uint16_t)magnitude;
                    s->entries[size].position = (uint8_t)i;
                    s->entries[size].kind = (uint8_t)(category(magnitude) | (value < 0 ? NEGATIVE : 0));
                    size++;
                }
                if (i == 63)
                    break;
            }
        }
    s->start[at] = size;
    return VZ_OK;
}

/* Where coded symbols go: to statistics where `out` is NULL, else to the bit stream. */
typedef struct {
    vz_bytes *out;
    encoder_table dc[2], ac[2];
    uint64_t raw; /* bits beside the symbols */
    int bad;
} sink;

static void put_symbol(sink *s, encoder_table *t, int symbol_, uint32_t extra, int count)
{
    if (!s->out) {
        t->frequency[symbol_]++;
        s->raw += (uint64_t)count;
    } else {
        s->bad |= t->length[symbol_] == 0;
        put_bits(s->out, (uint32_t)t->code[symbol_] << count | extra, t->length[symbol_] + count);
    }
}

static void put_raw(sink *s, uint32_t bits, int count)
{
    if (s->out)
        put_bits(s->out, bits, count);
    else
        s->raw += (uint64_t)count;
}

static void put_dc(sink *s, int set, int32_t difference)
{
    uint32_t magnitude = (uint32_t)(difference < 0 ? -difference : difference);
    int size;

    if (magnitude > 2047) {
        s->bad = 1;
        return;
    }
    size = category(magnitude);
    put_symbol(s, &s->dc[set], size, difference < 0 ? ~magnitude & ((1u << size) - 1) : magnitude, size);
}

#define CORRECTIONS 4096

typedef struct {
    uint32_t eobrun;
    size_t waiting;                  /* correction bits of the blocks in the run */
    uint8_t bits[CORRECTIONS + 64];
} band_state;

static void put_corrections(sink *s, const uint8_t *bits, size_t count)
{
    size_t i;

    if (!s->out)
        s->raw += count;
    else
        for (i = 0; i < count; i++)
            put_bits(s->out, bits[i], 1);
}

static void flush_run(sink *s, encoder_table *t, band_state *b)
{
    if (b->eobrun) {
        int size = category(b->eobrun >> 1);
        put_symbol(s, t, size << 4, b->eobrun & ((1u << size) - 1), size);
        b->eobrun = 0;
    }
    put_corrections(s, b->bits, b->waiting);
    b->waiting = 0;
}

static void first_pass(sink *s, encoder_table *t, band_state *b, const entry *e, const entry *end, int ss, int se, int al)
{
    int previous = ss - 1;

    for (; e < end && e->position <= se; e++) {
        uint32_t magnitude;
        int run, size = (e->kind & 15) - al;
        if (e->position < ss || size <= 0)
            continue;
        magnitude = (uint32_t)e->magnitude >> al;
        run = e->position - previous - 1;
        previous = e->position;
        if (b->eobrun)
            flush_run(s, t, b);
        for (; run > 15; run -= 16)
            put_symbol(s, t, 0xF0, 0, 0);
        put_symbol(s, t, run << 4 | size, e->kind & NEGATIVE ? ~magnitude & ((1u << size) - 1) : magnitude, size);
    }
    if (previous < se && ++b->eobrun == 0x7FFF)
        flush_run(s, t, b);
}

/* G.1.2.3 */
static void refine_pass(sink *s, encoder_table *t, band_state *b, const entry *e, const entry *end, int ss, int se, int al)
{
    const entry *f, *last = NULL; /* the last coefficient that becomes non-zero in this pass */
    int run = 0, previous = ss - 1;
    size_t own = b->waiting; /* this block's correction bits start here */

    for (f = e; f < end && f->position <= se; f++)
        if (f->position >= ss && f->magnitude >> al == 1)
            last = f;
    for (; e < end && e->position <= se; e++) {
        uint32_t magnitude = (uint32_t)e->magnitude >> al;
        if (e->position < ss || magnitude == 0)
            continue;
        run += e->position - previous - 1;
        previous = e->position;
        while (run > 15 && last && e <= last) {
            size_t mine = b->waiting - own;
            uint8_t kept[64];
            memcpy(kept, b->bits + own, mine);
            b->waiting = own;
            flush_run(s, t, b);
            put_symbol(s, t, 0xF0, 0, 0);
            put_corrections(s, kept, mine);
            own = 0;
            run -= 16;
        }
        if (magnitude > 1) {
            b->bits[b->waiting++] = (uint8_t)(magnitude & 1);
        } else {
            size_t mine = b->waiting - own;
            uint8_t kept[64];
            memcpy(kept, b->bits + own, mine);
            b->waiting = own;
            flush_run(s, t, b);
            put_symbol(s, t, run << 4 | 1, !(e->kind & NEGATIVE), 1);
            put_corrections(s, kept, mine);
            own = 0;
            run = 0;
        }
    }
    run += se - previous;
    if (run > 0 || b->waiting > own) {
        b->eobrun++;
        if (b->eobrun == 0x7FFF || b->waiting > CORRECTIONS)
            flush_run(s, t, b);
    }
}

typedef struct {
    const vz_component *components;
    sparse *blocks;
    int count;
    int32_t mcu_rows, mcu_cols;
} picture;

/* One AC band of one component. */
static void run_band(sink *s, const picture *p, int which, int ss, int se, int ah, int al)
{
    const sparse *blocks = &p->blocks[which];
    size_t total = (size_t)blocks->rows * (size_t)blocks->cols, i;
    encoder_table *t = &s->ac[0];
    band_state b;

    b.eobrun = 0;
    b.waiting = 0;
    for (i = 0; i < total; i++) {
        const entry *e = blocks->entries + blocks->start[i], *end = blocks->entries + blocks->start[i + 1];
        if (ah)
            refine_pass(s, t, &b, e, end, ss, se, al);
        else
            first_pass(s, t, &b, e, end, ss, se, al);
    }
    flush_run(s, t, &b);
    if (s->out)
        pad_bits(s->out);
}

static void put_block(sink *s, const sparse *blocks, int set, size_t at, int inside, int sequential, int ah, int al, int32_t *dc)
{
    int32_t value = *dc;

    if (ah) {
        /* an arithmetic shift, as G.1.2.1 wants, spelled so that it does not depend on the compiler */
        uint32_t bits = inside ? (uint32_t)(int32_t)blocks->dc[at] : 0;
        put_raw(s, bits >> al & 1, 1);
        return;
    }
    if (inside) {
        int32_t raw = blocks->dc[at];
        value = raw >= 0 ? raw >> al : -((-raw + (1 << al) - 1) >> al);
    }
    put_dc(s, set, value - *dc); /* a block beside the picture repeats the last one: the cheapest code */
    *dc = value;
    if (sequential) {
        const entry *e = NULL, *end = NULL;
        encoder_table *t = &s->ac[set];
        int previous = 0;
        if (inside) {
            e = blocks->entries + blocks->start[at];
            end = blocks->entries + blocks->start[at + 1];
        }
        for (; e < end; e++) {
            uint32_t magnitude = e->magnitude;
            int run = e->position - previous - 1, size = e->kind & 15;
            previous = e->position;
            for (; run > 15; run -= 16)
                put_symbol(s, t, 0xF0, 0, 0);
            put_symbol(s, t, run << 4 | size, e->kind & NEGATIVE ? ~magnitude & ((1u << size) - 1) : magnitude, size);
        }
        if (previous < 63)
            put_symbol(s, t, 0, 0, 0);
    }
}

/* DC of the components from..to-1 (all coefficients where `sequential`), interleaved if they are several. */
static void run_interleaved(sink *s, const picture *p, int from, int to, int sequential, int ah, int al)
{
    int32_t dc[VZ_MAX_COMPONENTS] = {0, 0, 0, 0};
    int single = to - from == 1, i;
    int32_t rows = single ? p->blocks[from].rows : p->mcu_rows, cols = single ? p->blocks[from].cols : p->mcu_cols;
    int32_t row, col;

    for (row = 0; row < rows; row++)
        for (col = 0; col < cols; col++)
            for (i = from; i < to; i++) {
                const sparse *blocks = &p->blocks[i];
                int h = single ? 1 : p->components[i].h, v = single ? 1 : p->components[i].v, x, y;
                for (y = 0; y < v; y++)
                    for (x = 0; x < h; x++) {
                        int64_t at_row = (int64_t)row * v + y, at_col = (int64_t)col * h + x;
                        int inside = at_row < blocks->rows && at_col < blocks->cols;
                        size_t at = inside ? (size_t)at_row * (size_t)blocks->cols + (size_t)at_col : 0;
                        put_block(s, blocks, p->components[i].set, at, inside, sequential, ah, al, &dc[i]);
                    }
            }
    if (s->out)
        pad_bits(s->out);
}

static void clear(sink *s)
{
    memset(s, 0, sizeof *s);
}

static void put_sos(vz_bytes *out, const picture *p, int from, int to, int ss, int se, int ah, int al, int band)
{
    int i;

    put_word(out, 0xFFDA);
    put_word(out, 6 + 2 * (to - from));
    put_byte(out, to - from);
    for (i = from; i < to; i++) {
        put_byte(out, p->components[i].id);
        put_byte(out, band ? 0 : p->components[i].set << 4 | (ss == 0 && se > 0 ? p->components[i].set : 0));
    }
    put_byte(out, ss);
    put_byte(out, se);
    put_byte(out, ah << 4 | al);
}

static uint64_t cost_interleaved(sink *s, const picture *p, int from, int to, int ah, int al)
{
    uint64_t bits;
    int i;

    clear(s);
    run_interleaved(s, p, from, to, 0, ah, al);
    bits = s->raw + (uint64_t)(8 + 2 * (to - from)) * 8;
    if (!ah)
        for (bits += 32, i = 0; i < 2; i++) {
            optimal_code(&s->dc[i]);
            if (s->dc[i].total)
                bits += coded_bits(&s->dc[i]);
        }
    return bits;
}

/* What run_band counts in a first pass, without the rest: most of the time of writing is spent here. */
static void count_first(const sparse *blocks, int ss, int se, int al, uint32_t frequency[256])
{
    size_t total = (size_t)blocks->rows * (size_t)blocks->cols, i;
    const entry *e = blocks->entries;
    uint32_t eobrun = 0;

    for (i = 0; i < total; i++) {
        const entry *end = blocks->entries + blocks->start[i + 1];
        int previous = ss - 1;
        for (; e < end && e->position < ss; e++)
            ;
        for (; e < end && e->position <= se; e++) {
            int size = (e->kind & 15) - al, run;
            if (size <= 0)
                continue;
            if (eobrun) {
                frequency[category(eobrun >> 1) << 4]++;
                eobrun = 0;
            }
            run = e->position - previous - 1;
            previous = e->position;
            if (run > 15) {
                frequency[0xF0] += (uint32_t)run >> 4;
                run &= 15;
            }
            frequency[run << 4 | size]++;
        }
        e = end;
        if (previous < se && ++eobrun == 0x7FFF) {
            frequency[0xE0]++;
            eobrun = 0;
        }
    }
    if (eobrun)
        frequency[category(eobrun >> 1) << 4]++;
}

static uint64_t cost_band(sink *s, const picture *p, int which, int ss, int se, int ah, int al)
{
    uint32_t *frequency = s->ac[0].frequency;
    int symbol_;

    clear(s);
    if (ah) {
        run_band(s, p, which, ss, se, ah, al);
    } else {
        count_first(&p->blocks[which], ss, se, al, frequency);
        for (symbol_ = 0; symbol_ < 256; symbol_++) {
            int run = symbol_ >> 4, size = symbol_ & 15;
            s->raw += (uint64_t)frequency[symbol_] * (uint64_t)(size ? size : run < 15 ? run : 0);
        }
    }
    optimal_code(&s->ac[0]);
    return s->raw + coded_bits(&s->ac[0]) + (10 + 4) * 8;
}

static void write_interleaved(sink *s, const picture *p, int from, int to, int sequential, int optimise, int ah, int al,
                              vz_bytes *out)
{
    int i, klass, tables = 0, size = 2, bad;

    clear(s);
    run_interleaved(s, p, from, to, sequential, ah, al);
    bad = s->bad;
    for (i = 0; i < 2; i++)
        for (klass = 0; klass < 2; klass++) {
            encoder_table *t = klass ? &s->ac[i] : &s->dc[i];
            int j, used = 0;
            for (j = 0; j < 256; j++)
                used |= t->frequency[j] != 0;
            t->total = 0;
            if (!used)
                continue;
            if (optimise)
                optimal_code(t);
            else
                standard_code(t, klass, i);
            tables++;
            size += 17 + t->total;
        }
    if (tables) {
        put_word(out, 0xFFC4);
        put_word(out, size);
        for (i = 0; i < 2; i++)
            for (klass = 0; klass < 2; klass++) {
                encoder_table *t = klass ? &s->ac[i] : &s->dc[i];
                if (t->total)
                    put_table(out, t, klass, i);
            }
    }
    put_sos(out, p, from, to, 0, sequential ? 63 : 0, ah, al, 0);
    s->out = out;
    s->bad = bad;
    run_interleaved(s, p, from, to, sequential, ah, al);
}

static void write_band(sink *s, const picture *p, int which, int ss, int se, int ah, int al, vz_bytes *out)
{
    clear(s);
    run_band(s, p, which, ss, se, ah, al);
    optimal_code(&s->ac[0]);
    put_word(out, 0xFFC4);
    put_word(out, 2 + 17 + s->ac[0].total);
    put_table(out, &s->ac[0], 1, 0);
    put_sos(out, p, which, which + 1, ss, se, ah, al, 1);
    s->out = out;
    run_band(s, p, which, ss, se, ah, al);
}

typedef struct {
    int al;      /* bits left to refinement scans */
    int cut[4];  /* last positions of the bands of the first scans, ending with 63 */
    int bands;
} script;

static const uint8_t cuts[] = {2, 5, 8, 14, 24, 40};
enum { CUTS = sizeof cuts, FIRST_CUT = 1 };

/* Looks for a cut of the band from..63 that makes it cheaper than `whole`: from cuts[start] on, downhill to either side.
 * Returns the index of the best, or -1; the cost of the upper part goes to *upper, of both to *both. */
static int find_cut(sink *s, const picture *p, int which, int from, int al, int start, uint64_t whole, uint64_t *both,
                    uint64_t *upper)
{
    uint64_t least = whole;
    int best = -1, step, i;

    *upper = 0;
    for (step = 1; step >= -1; step -= 2) {
        if (step < 0 && best > start)
            break; /* it went up: no need to look down */
        for (i = step > 0 ? start : start - 1; i >= 0 && i < CUTS && cuts[i] >= from; i += step) {
            uint64_t low = cost_band(s, p, which, from, cuts[i], 0, al), high;
            high = low < least ? cost_band(s, p, which, cuts[i] + 1, 63, 0, al) : 0;
            if (low + high >= least)
                break;
            least = low + high;
            *upper = high;
            best = i;
        }
    }
    *both = least;
    return best;
}

/* The cheapest of a few scripts for a component's AC coefficients: how many bits are left to refinement, then where the
 * band is cut. Scans of different components are independent, so each is chosen alone. */
static script choose_script(sink *s, const picture *p, int which)
{
    script best;
    uint64_t whole[3] = {0, 0, 0}, least = 0, refinement = 0, upper, rest;
    int al, at;

    memset(&best, 0, sizeof best);
    for (al = 0; al < 3; al++) {
        uint64_t total;
        if (al)
            refinement += cost_band(s, p, which, 1, 63, al, al - 1);
        whole[al] = cost_band(s, p, which, 1, 63, 0, al);
        total = whole[al];
        if (al == 0 || total + refinement < least + least / 32) { /* a cut may still turn it */
            uint64_t cut = cost_band(s, p, which, 1, cuts[FIRST_CUT], 0, al) +
                           cost_band(s, p, which, cuts[FIRST_CUT] + 1, 63, 0, al);
            total = cut < total ? cut : total;
        }
        total += refinement;
        if (al == 0 || total < least) {
            least = total;
            best.al = al;
        } else if (total > least + least / 32) {
            break; /* far from paying: two bits will not either */
        }
    }
    best.bands = 1;
    best.cut[0] = 63;
    at = find_cut(s, p, which, 1, best.al, FIRST_CUT, whole[best.al], &least, &upper);
    if (at >= 0) {
        best.bands = 2;
        best.cut[0] = cuts[at];
        best.cut[1] = 63;
        at = find_cut(s, p, which, cuts[at] + 1, best.al, at + 2, upper, &rest, &upper);
        if (at >= 0) {
            best.bands = 3;
            best.cut[1] = cuts[at];
            best.cut[2] = 63;
        }
    }
    return best;
}

static int interleavable(const picture *p)
{
    int i, sum = 0;

    for (i = 0; i < p->count; i++)
        sum += p->components[i].h * p->components[i].v;
    return sum <= 10; /* B.2.3 */
}

static int encode(sink *s, const picture *p, int progressive, int optimise, vz_bytes *out)
{
    int together = p->count == 1 || interleavable(p);
    int groups = together ? 1 : p->count, g, i, bad = 0;

    for (g = 0; g < groups; g++) {
        int from = together ? 0 : g, to = together ? p->count : g + 1, al = 0;
        if (progressive && cost_interleaved(s, p, from, to, 0, 1) + cost_interleaved(s, p, from, to, 1, 0) <
                               cost_interleaved(s, p, from, to, 0, 0))
            al = 1;
        write_interleaved(s, p, from, to, !progressive, optimise || progressive, 0, al, out);
        bad |= s->bad;
        if (al)
            write_interleaved(s, p, from, to, 0, 1, 1, 0, out);
    }
    for (i = 0; progressive && i < p->count; i++) {
        script chosen = choose_script(s, p, i);
        int band, al, ss = 1;
        for (band = 0; band < chosen.bands; band++) {
            write_band(s, p, i, ss, chosen.cut[band], 0, chosen.al, out);
            bad |= s->bad;
            ss = chosen.cut[band] + 1;
        }
        for (al = chosen.al - 1; al >= 0; al--) {
            write_band(s, p, i, 1, 63, al + 1, al, out);
            bad |= s->bad;
        }
    }
    return out->failed ? VZ_NO_MEMORY : bad ? VZ_RANGE : VZ_OK;
}

static int open_picture(picture *p, sparse blocks[VZ_MAX_COMPONENTS], const vz_component *components, int count)
{
    int i, status = VZ_OK;

    memset(p, 0, sizeof *p);
    memset(blocks, 0, VZ_MAX_COMPONENTS * sizeof *blocks);
    p->components = components;
    p->blocks = blocks;
    p->count = count;
    for (i = 0; i < count && !status; i++)
        status = sparse_build(&blocks[i], &components[i]);
    return status;
}

int vz_encode_scans(const vz_component *components, int count, int progressive, int optimise, int32_t mcu_rows,
                    int32_t mcu_cols, vz_bytes *out)
{
    sparse blocks[VZ_MAX_COMPONENTS];
    picture p;
    sink *s;
    int i, status;

    if (count < 1 || count > VZ_MAX_COMPONENTS)
        return VZ_BAD_ARGUMENT;
    for (i = 0; i < count; i++)
        if (!valid_component(&components[i]) || components[i].set < 0 || components[i].set > 1)
            return VZ_BAD_ARGUMENT;
    s = malloc(sizeof *s);
    if (!s)
        return VZ_NO_MEMORY;
    status = open_picture(&p, blocks, components, count);
    p.mcu_rows = mcu_rows;
    p.mcu_cols = mcu_cols;
    if (!status)
        status = encode(s, &p, progressive, optimise, out);
    for (i = 0; i < VZ_MAX_COMPONENTS; i++)
        sparse_free(&blocks[i]);
    free(s);
    return status;
}
