/* Huffman encoding of JPEG scans: sequential and progressive (ITU-T T.81, Annexes C, F, G and K.2). */
#include "native.h"

#include <stdlib.h>
#include <string.h>

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
    int i, n = 1, leaf = 0, inner, next, maximum = 0;

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
    inner = next = n; /* leaves 0..n-1 ascending, inner nodes from n on ascending too: two queues */
    for (i = 0; i < n - 1; i++) {
        int pick[2], j;
        for (j = 0; j < 2; j++)
            pick[j] = leaf < n && (inner >= next || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
        weight[next] = weight[pick[0]] + weight[pick[1]];
        parent[pick[0]] = parent[pick[1]] = (int16_t)next;
        next++;
    }
    memset(lengths, 0, sizeof lengths);
    depth[next - 1] = 0;
    for (i = next - 2; i >= 0; i--) {
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

static uint64_t symbol_bits(const encoder_table *t)
{
    uint64_t bits = 0;
    int i;

    for (i = 0; i < 256; i++)
        bits += (uint64_t)t->frequency[i] * t->length[i];
    return bits;
}

static uint64_t table_bits(const encoder_table *t) /* of its own entry in DHT */
{
    return (uint64_t)(17 + t->total) * 8;
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
            uint64_t nonzero = 0;
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
                uint64_t halves[2];
                memcpy(halves, block + 8 * y, 16);
                if (halves[0] | halves[1])
                    for (i = 8 * y; i < 8 * y + 8; i++)
                        nonzero |= (uint64_t)(block[i] != 0) << place[i];
            }
            nonzero &= ~UINT64_C(1);
            for (i = 1; nonzero >> i; i++) {
                int value;
                while (!(nonzero >> i & 255))
                    i += 8;
                while (!(nonzero >> i & 1))
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
    size_t first = b->waiting; /* this block's correction bits start here */

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
            size_t count = b->waiting - first;
            uint8_t corrections[64];
            memcpy(corrections, b->bits + first, count);
            b->waiting = first;
            flush_run(s, t, b);
            put_symbol(s, t, 0xF0, 0, 0);
            put_corrections(s, corrections, count);
            first = 0;
            run -= 16;
        }
        if (magnitude > 1) {
            b->bits[b->waiting++] = (uint8_t)(magnitude & 1);
        } else {
            size_t count = b->waiting - first;
            uint8_t corrections[64];
            memcpy(corrections, b->bits + first, count);
            b->waiting = first;
            flush_run(s, t, b);
            put_symbol(s, t, run << 4 | 1, !(e->kind & NEGATIVE), 1);
            put_corrections(s, corrections, count);
            first = 0;
            run = 0;
        }
    }
    run += se - previous;
    if (run > 0 || b->waiting > first) {
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
    uint64_t share; /* of the blocks of the picture, one in so many is here: what their bits count for */
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
                bits += symbol_bits(&s->dc[i]) + table_bits(&s->dc[i]);
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
    return p->share * (s->raw + symbol_bits(&s->ac[0])) + table_bits(&s->ac[0]) + (10 + 4) * 8;
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

enum { ENOUGH = 1024, MOST_SKIPPED = 4, FEWEST_ROWS = 8 };

/* One row of blocks in so many, to choose a script by: more blocks do not choose better, and choosing is half the time of
 * writing. Returns how many rows one stands for; 1: the component is small, and nothing was made. 0: no memory. */
static uint64_t sparse_sample(sparse *sample, const sparse *whole)
{
    size_t cols = (size_t)whole->cols, every = (size_t)whole->rows * cols / ENOUGH, row, size = 0, col, at = 0;

    memset(sample, 0, sizeof *sample);
    every = every < MOST_SKIPPED ? every : MOST_SKIPPED;
    if (every > (size_t)whole->rows / FEWEST_ROWS)
        every = (size_t)whole->rows / FEWEST_ROWS;
    if (every < 2)
        return 1;
    sample->cols = whole->cols;
    for (row = every / 2; row < (size_t)whole->rows; row += every, sample->rows++)
        size += whole->start[(row + 1) * cols] - whole->start[row * cols];
    sample->start = malloc(((size_t)sample->rows * cols + 1) * sizeof *sample->start);
    sample->entries = malloc((size + 1) * sizeof *sample->entries);
    if (!sample->start || !sample->entries)
        return 0;
    sample->start[0] = 0;
    for (row = every / 2; row < (size_t)whole->rows; row += every) {
        size_t from = whole->start[row * cols], count = whole->start[(row + 1) * cols] - from, begin = sample->start[at];
        memcpy(sample->entries + begin, whole->entries + from, count * sizeof *sample->entries);
        for (col = 1; col <= cols; col++)
            sample->start[at + col] = begin + whole->start[row * cols + col] - from;
        at += cols;
    }
    return every;
}

/* `choose_script` by a sample of the component. */
static int script_of(sink *s, const picture *p, int which, script *chosen)
{
    sparse blocks[VZ_MAX_COMPONENTS];
    picture sampled = *p;

    memcpy(blocks, p->blocks, (size_t)p->count * sizeof *blocks);
    sampled.share = sparse_sample(&blocks[which], &p->blocks[which]);
    if (sampled.share == 1) {
        *chosen = choose_script(s, p, which);
        return VZ_OK;
    }
    if (sampled.share) {
        sampled.blocks = blocks;
        *chosen = choose_script(s, &sampled, which);
    }
    sparse_free(&blocks[which]);
    return sampled.share ? VZ_OK : VZ_NO_MEMORY;
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
        script chosen;
        int band, al, ss = 1;
        if (script_of(s, p, i, &chosen))
            return VZ_NO_MEMORY;
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
    p->share = 1;
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
        if (!vz_valid_component(&components[i]) || components[i].set < 0 || components[i].set > 1)
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
