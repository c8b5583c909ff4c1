/* Coding of bit planes: context tables, logistic mixing and a binary range coder, all in integers of fixed width, so that
 * every machine makes the same bytes. What the numbers mean is said in vzc/coding.py; the test has the same arithmetic in Python.
 *
 * Planes are coded one after the other (iterations, then channels), each row by row. They are copied into a scratch where each
 * has a margin of zeros and where a plane of ones (zeros in its margin) stands before the first: then every reference,
 * also one that says "is there a row above?", is one byte at a fixed offset from the cell that is coded. */
#include "native.h"

#include <stdlib.h>
#include <string.h>

#define MARGIN VZ_MAX_REACH
#define LIMIT 2816           /* of the logistic domain: 11 nats in steps of 1/256 */
#define ONE 256              /* the constant input of the mixer */
#define WEIGHT_LIMIT 2097151 /* 32 in steps of 1/65536 */
#define FULL ((uint64_t)1 << 56)
#define LEAST ((uint64_t)1 << 48)

struct vz_context {
    int32_t slots, sets, adaptive;
    uint8_t rates[VZ_MAX_SETS + 1]; /* shift of each set's tables, then of the weights; 0 = they stay */
    uint8_t *lengths;               /* [slot][set] references */
    int32_t *slot_of;               /* [reference] slot, -1 = the plane of ones */
    int8_t *dy, *dx;                /* [reference] */
    uint32_t *reference_start;      /* [slot] first reference; slots + 1 of them */
    uint32_t *table_start;          /* [slot] first table entry; slots + 1 of them */
    uint16_t *tables;
    int32_t *weights;                 /* [slot][set + 1], in 1/65536; the last is that of the constant */
    uint16_t squash[2 * LIMIT + 1];   /* logistic domain to probability in 1/65536 */
    int16_t stretch[4096];            /* probability in 1/4096 to logistic domain */
    uint32_t cost[4096];              /* bits that an event of that probability costs, in 1/65536 */
};

/* ------------------------------------------------------------------------------------------------ number tables */

/* 65536 / (1 + exp(-x)) by repeated multiplication with exp(-1/256) in 31 fractional bits. */
static void fill_squash(uint16_t *squash)
{
    uint64_t power = (uint64_t)1 << 31, sum, p;
    int32_t x;

    for (x = 0; x <= LIMIT; x++) {
        sum = ((uint64_t)1 << 31) + power;
        p = (((uint64_t)1 << 47) + sum / 2) / sum;
        squash[LIMIT + x] = (uint16_t)p;
        squash[LIMIT - x] = (uint16_t)(65536 - p);
        power = (power * 2139111403u + ((uint64_t)1 << 30)) >> 31;
    }
}

/* The least x whose probability reaches the middle of the step; odd about one half. */
static void fill_stretch(int16_t *stretch, const uint16_t *squash)
{
    int32_t step, x = 0;

    for (step = 2048; step < 4096; step++) {
        while (x < LIMIT && squash[LIMIT + x] < 16 * step + 8)
            x++;
        stretch[step] = (int16_t)x;
        stretch[4095 - step] = (int16_t)-x;
    }
}

/* -log2 of the middle of each step, bit by bit by squaring. */
static void fill_cost(uint32_t *cost)
{
    int32_t step, bit;

    for (step = 0; step < 4096; step++) {
        uint64_t mantissa = (uint64_t)(16 * step + 8);
        uint32_t log2 = 0;

        while (mantissa >> (log2 + 1))
            log2++;
        mantissa <<= 31 - log2;
        for (bit = 0; bit < 16; bit++) {
            mantissa = (mantissa * mantissa) >> 31;
            log2 = 2 * log2 + (uint32_t)(mantissa >> 32);
            mantissa >>= mantissa >> 32;
        }
        cost[step] = (16u << 16) - log2;
    }
}

/* ------------------------------------------------------------------------------------------------ model */

static int check(const vz_context *m, const int32_t *references, size_t reference_items, size_t table_items)
{
    size_t used = 0, entries = 0;
    int32_t slot, set, j;

    for (slot = 0; slot < m->slots; slot++) {
        m->reference_start[slot] = (uint32_t)used;
        m->table_start[slot] = (uint32_t)entries;
        for (set = 0; set < m->sets; set++) {
            int32_t length = m->lengths[slot * m->sets + set];

            if (length > VZ_MAX_REFERENCES || reference_items - used < (size_t)length)
                return VZ_BAD_ARGUMENT;
            for (j = 0; j < length; j++, used++) {
                const int32_t *r = references + 3 * used;

                if (r[0] < -1 || r[0] > slot || r[1] < -MARGIN || r[1] > MARGIN || r[2] < -MARGIN || r[2] > MARGIN)
                    return VZ_BAD_ARGUMENT;
                if (r[0] == slot && (r[1] > 0 || (r[1] == 0 && r[2] >= 0)))
                    return VZ_BAD_ARGUMENT;
                m->slot_of[used] = r[0];
                m->dy[used] = (int8_t)r[1];
                m->dx[used] = (int8_t)r[2];
            }
            entries += (size_t)1 << length;
        }
    }
    m->reference_start[slot] = (uint32_t)used;
    m->table_start[slot] = (uint32_t)entries;
    return used == reference_items && entries == table_items ? VZ_OK : VZ_BAD_ARGUMENT;
}

int vz_context_new(vz_context **out, int32_t slots, int32_t sets, const uint8_t *lengths, const int32_t *references,
                   size_t reference_items, const uint16_t *tables, size_t table_items, const int32_t *weights,
                   const uint8_t *rates)
{
    vz_context *m;
    size_t i;
    int status;

    *out = NULL;
    if (slots < 1 || slots > VZ_MAX_SLOTS || sets < 1 || sets > VZ_MAX_SETS)
        return VZ_BAD_ARGUMENT;
    if (reference_items > (size_t)slots * (size_t)sets * VZ_MAX_REFERENCES ||
        table_items > (size_t)slots * (size_t)sets << VZ_MAX_REFERENCES)
        return VZ_BAD_ARGUMENT;
    m = calloc(1, sizeof *m);
    if (!m)
        return VZ_NO_MEMORY;
    m->slots = slots;
    m->sets = sets;
    m->lengths = malloc((size_t)slots * (size_t)sets);
    m->slot_of = malloc((reference_items + 1) * sizeof *m->slot_of);
    m->dy = malloc(reference_items + 1);
    m->dx = malloc(reference_items + 1);
    m->reference_start = malloc(((size_t)slots + 1) * sizeof *m->reference_start);
    m->table_start = malloc(((size_t)slots + 1) * sizeof *m->table_start);
    m->tables = malloc((table_items + 1) * sizeof *m->tables);
    m->weights = malloc((size_t)slots * ((size_t)sets + 1) * sizeof *m->weights);
    if (!m->lengths || !m->slot_of || !m->dy || !m->dx || !m->reference_start || !m->table_start || !m->tables || !m->weights) {
        vz_context_free(m);
        return VZ_NO_MEMORY;
    }
    memcpy(m->lengths, lengths, (size_t)slots * (size_t)sets);
    memcpy(m->tables, tables, table_items * sizeof *tables);
    memcpy(m->weights, weights, (size_t)slots * ((size_t)sets + 1) * sizeof *weights);
    memcpy(m->rates, rates, (size_t)sets + 1);
    status = check(m, references, reference_items, table_items);
    for (i = 0; i < table_items && !status; i++)
        if (tables[i] == 0)
            status = VZ_BAD_ARGUMENT;
    for (i = 0; i < (size_t)slots * ((size_t)sets + 1) && !status; i++)
        if (weights[i] < -WEIGHT_LIMIT || weights[i] > WEIGHT_LIMIT)
            status = VZ_BAD_ARGUMENT;
    for (i = 0; i <= (size_t)sets && !status; i++) {
        if (rates[i] > VZ_MAX_RATE)
            status = VZ_BAD_ARGUMENT;
        m->adaptive |= rates[i] != 0;
    }
    if (status) {
        vz_context_free(m);
        return status;
    }
    fill_squash(m->squash);
    fill_stretch(m->stretch, m->squash);
    fill_cost(m->cost);
    *out = m;
    return VZ_OK;
}

void vz_context_free(vz_context *m)
{
    if (!m)
        return;
    free(m->lengths);
    free(m->slot_of);
    free(m->dy);
    free(m->dx);
    free(m->reference_start);
    free(m->table_start);
    free(m->tables);
    free(m->weights);
    free(m);
}

int32_t vz_context_slots(const vz_context *m)
{
    return m->slots;
}

/* ------------------------------------------------------------------------------------------------ range coder */

/* Martin 1979: [low, low + range) within 56 bits behind `size` bytes; a one takes the lower part. At least 48 bits of range
 * are kept, so that cutting it by a 16-bit probability rounds away less than 2^-32 of it. */
typedef struct {
    uint64_t low, range;
    uint8_t *bytes;
    size_t size, capacity; /* of writing: bytes beyond the capacity are not kept, since raw bits are then shorter */
    int over;
} writer;

typedef struct {
    uint64_t code, range; /* code: the value read, relative to the interval's lower end */
    const uint8_t *bytes;
    size_t size, at;
} reader;

static void carry(writer *w)
{
    size_t i = w->size;

    if (w->low < FULL)
        return;
    w->low -= FULL;
    while (i > 0 && ++w->bytes[i - 1] == 0)
        i--;
}

static void put_byte(writer *w)
{
    carry(w);
    if (w->size == w->capacity)
        w->over = 1;
    else
        w->bytes[w->size++] = (uint8_t)(w->low >> 48);
    w->low = (w->low << 8) & (FULL - 1);
}

static void write_bit(writer *w, uint32_t p, uint32_t bit)
{
    uint64_t part = (w->range >> 16) * p;

    if (bit) {
        w->range = part;
    } else {
        w->low += part;
        w->range -= part;
    }
    while (w->range < LEAST) {
        w->range <<= 8;
        put_byte(w);
    }
}

/* The shortest bytes whose value, zeros appended, lies in the interval. The reader appends zeros, so that zeros at the end go. */
static void finish(writer *w)
{
    uint64_t step, value;
    int bytes, i;

    carry(w);
    for (bytes = 0;; bytes++) {
        step = (uint64_t)1 << (56 - 8 * bytes);
        value = (w->low + step - 1) / step * step;
        if (value < w->low + w->range)
            break;
    }
    w->low = value;
    carry(w);
    for (i = 0; i < bytes; i++)
        put_byte(w);
    while (w->size > 0 && w->bytes[w->size - 1] == 0)
        w->size--;
}

static uint64_t next_byte(reader *r)
{
    uint64_t byte = r->at < r->size ? r->bytes[r->at] : 0;

    r->at++;
    return byte;
}

static void start_reading(reader *r, const uint8_t *bytes, size_t size)
{
    int i;

    r->bytes = bytes;
    r->size = size;
    r->at = 0;
    r->code = 0;
    r->range = FULL;
    for (i = 0; i < 7; i++)
        r->code = r->code << 8 | next_byte(r);
}

static uint32_t read_bit(reader *r, uint32_t p)
{
    uint64_t part = (r->range >> 16) * p;
    uint32_t bit = r->code < part;

    if (bit) {
        r->range = part;
    } else {
        r->code -= part;
        r->range -= part;
    }
    while (r->range < LEAST) {
        r->range <<= 8;
        r->code = r->code << 8 | next_byte(r);
    }
    return bit;
}

/* ------------------------------------------------------------------------------------------------ planes */

typedef struct {
    size_t stride, plane; /* bytes to a row and to a plane, margins included */
    uint8_t *cells;       /* the plane of ones, then `last` planes */
} scratch;

typedef enum { WRITE, READ, COUNT } task;

typedef struct {
    writer write;
    reader read;
    uint64_t cost;
} coder;

/* |x| / 2^shift rounded, with x's sign: C leaves the shift of negative numbers to the compiler. */
static int64_t shifted(int64_t x, int shift)
{
    uint64_t half = shift ? (uint64_t)1 << (shift - 1) : 0;
    uint64_t size = ((uint64_t)(x < 0 ? -x : x) + half) >> shift;

    return x < 0 ? -(int64_t)size : (int64_t)size;
}

/* One plane. `what` and `adaptive` are constants at every call, so that the compiler makes a loop for each. */
static inline void code_plane(const vz_context *m, const task what, const int adaptive, int32_t slot, int32_t height,
                              int32_t width, const scratch *s, coder *c)
{
    const int32_t sets = m->sets;
    const uint8_t *lengths = m->lengths + (size_t)slot * (size_t)sets;
    const size_t first = m->reference_start[slot];
    ptrdiff_t offsets[VZ_MAX_SETS * VZ_MAX_REFERENCES];
    uint16_t copy[VZ_MAX_SETS << VZ_MAX_REFERENCES];
    uint16_t *table = m->tables + m->table_start[slot];
    int32_t weights[VZ_MAX_SETS + 1];
    int32_t y, x, set, j, count = 0;

    for (set = 0; set < sets; set++)
        for (j = 0; j < lengths[set]; j++, count++) {
            size_t r = first + (size_t)count;
            offsets[count] = (ptrdiff_t)s->plane * (m->slot_of[r] - slot) + (ptrdiff_t)s->stride * m->dy[r] + m->dx[r];
        }
    memcpy(weights, m->weights + (size_t)slot * ((size_t)sets + 1), ((size_t)sets + 1) * sizeof *weights);
    if (adaptive) {
        memcpy(copy, table, (m->table_start[slot + 1] - m->table_start[slot]) * sizeof *copy);
        table = copy;
    }
    for (y = 0; y < height; y++) {
        uint8_t *cell = s->cells + s->plane * ((size_t)slot + 1) + s->stride * ((size_t)y + MARGIN) + MARGIN;
        for (x = 0; x < width; x++, cell++) {
            const ptrdiff_t *offset = offsets;
            uint16_t *entries = table, *used[VZ_MAX_SETS];
            int32_t inputs[VZ_MAX_SETS + 1];
            int64_t sum = (int64_t)weights[sets] * ONE;
            uint32_t p, bit;

            for (set = 0; set < sets; set++) {
                uint32_t context = 0;
                for (j = 0; j < lengths[set]; j++)
                    context |= (uint32_t)cell[*offset++] << j;
                used[set] = entries + context;
                inputs[set] = m->stretch[*used[set] >> 4];
                sum += (int64_t)weights[set] * inputs[set];
                entries += (size_t)1 << lengths[set];
            }
            sum = shifted(sum, 16);
            p = m->squash[LIMIT + (sum > LIMIT ? LIMIT : sum < -LIMIT ? -LIMIT : sum)];
            if (what == READ) {
                bit = read_bit(&c->read, p);
                *cell = (uint8_t)bit;
            } else {
                bit = *cell;
                if (what == WRITE)
                    write_bit(&c->write, p, bit);
                else
                    c->cost += m->cost[(bit ? p : 65536 - p) >> 4];
            }
            if (!adaptive)
                continue;
            for (set = 0; set < sets; set++)
                if (m->rates[set]) {
                    uint32_t old = *used[set];
                    *used[set] = (uint16_t)(bit ? old + ((65536 - old) >> m->rates[set]) : old - (old >> m->rates[set]));
                }
            if (m->rates[sets]) {
                int64_t error = (bit ? 65536 : 0) - (int64_t)p;
                inputs[sets] = ONE;
                for (set = 0; set <= sets; set++) {
                    int64_t w = weights[set] + shifted(error * inputs[set], m->rates[sets]);
                    weights[set] = (int32_t)(w > WEIGHT_LIMIT ? WEIGHT_LIMIT : w < -WEIGHT_LIMIT ? -WEIGHT_LIMIT : w);
                }
            }
        }
    }
}

static void code_planes(const vz_context *m, const task what, const vz_planes *v, const scratch *s, coder *c)
{
    int32_t slot;

    for (slot = v->first; slot < v->last; slot++) {
        if (m->adaptive)
            code_plane(m, what, 1, slot, v->height, v->width, s, c);
        else
            code_plane(m, what, 0, slot, v->height, v->width, s, c);
    }
}

static int open_scratch(scratch *s, const vz_context *m, const vz_planes *v)
{
    int32_t y;

    if (v->images < 1 || v->height < 1 || v->width < 1 || v->first < 0 || v->last <= v->first || v->last > m->slots ||
        v->height > VZ_MAX_SIDE || v->width > VZ_MAX_SIDE)
        return VZ_BAD_ARGUMENT;
    s->stride = (size_t)v->width + 2 * MARGIN;
    s->plane = s->stride * ((size_t)v->height + 2 * MARGIN);
    if (s->plane > (size_t)PTRDIFF_MAX / ((size_t)v->last + 1))
        return VZ_BAD_ARGUMENT;
    s->cells = calloc((size_t)v->last + 1, s->plane);
    if (!s->cells)
        return VZ_NO_MEMORY;
    for (y = 0; y < v->height; y++)
        memset(s->cells + s->stride * ((size_t)y + MARGIN) + MARGIN, 1, (size_t)v->width);
    return VZ_OK;
}

/* Planes first..last - 1 of one image between `bits` and the scratch, whose margins stay zero. */
static void copy_planes(const scratch *s, const vz_planes *v, int32_t first, int32_t last, uint8_t *bits, int out)
{
    size_t width = (size_t)v->width, x;
    int32_t slot, y;

    for (slot = first; slot < last; slot++)
        for (y = 0; y < v->height; y++) {
            uint8_t *row = s->cells + s->plane * ((size_t)slot + 1) + s->stride * ((size_t)y + MARGIN) + MARGIN;
            uint8_t *line = bits + ((size_t)slot * (size_t)v->height + (size_t)y) * width;

            if (out)
                memcpy(line, row, width);
            else
                for (x = 0; x < width; x++)
                    row[x] = line[x] != 0;
        }
}

static size_t image_bits(const vz_planes *v, int32_t planes)
{
    return (size_t)planes * (size_t)v->height * (size_t)v->width;
}

static void pack(const uint8_t *bits, size_t count, uint8_t *out)
{
    size_t i;

    memset(out, 0, (count + 7) / 8);
    for (i = 0; i < count; i++)
        if (bits[i])
            out[i / 8] = (uint8_t)(out[i / 8] | 0x80u >> i % 8);
}

static void unpack(const uint8_t *bytes, size_t count, uint8_t *bits)
{
    size_t i;

    for (i = 0; i < count; i++)
        bits[i] = bytes[i / 8] >> (7 - i % 8) & 1;
}

int vz_context_encode(const vz_context *m, const vz_planes *v, const uint8_t *bits, uint8_t *out, int32_t *sizes)
{
    size_t before = image_bits(v, v->first), whole = image_bits(v, v->last), raw = (whole - before + 7) / 8;
    scratch s;
    int32_t i;
    int status = open_scratch(&s, m, v);

    if (status)
        return status;
    for (i = 0; i < v->images; i++, bits += whole) {
        coder c;
        memset(&c, 0, sizeof c);
        c.write.range = FULL;
        c.write.bytes = out;
        c.write.capacity = raw;
        copy_planes(&s, v, 0, v->last, (uint8_t *)bits, 0);
        code_planes(m, WRITE, v, &s, &c);
        finish(&c.write);
        if (c.write.over || c.write.size >= raw) {
            pack(bits + before, whole - before, out);
            c.write.size = raw;
        }
        sizes[i] = (int32_t)c.write.size;
        out += c.write.size;
    }
    free(s.cells);
    return VZ_OK;
}

int vz_context_decode(const vz_context *m, const vz_planes *v, uint8_t *bits, const uint8_t *data, const int32_t *sizes,
                      int32_t *bad)
{
    size_t before = image_bits(v, v->first), whole = image_bits(v, v->last), count = whole - before, raw = (count + 7) / 8;
    scratch s;
    int32_t i;
    int status = open_scratch(&s, m, v);

    if (status)
        return status;
    for (i = 0; i < v->images && !status; i++, bits += whole) {
        size_t size = (size_t)sizes[i];
        *bad = i;
        if (size > raw) {
            status = VZ_BAD_VALUE;
        } else if (size == raw) {
            unpack(data, count, bits + before);
            if (count % 8 && data[raw - 1] & (0xFFu >> count % 8))
                status = VZ_BAD_VALUE;
        } else {
            coder c;
            memset(&c, 0, sizeof c);
            start_reading(&c.read, data, size);
            copy_planes(&s, v, 0, v->first, bits, 0);
            code_planes(m, READ, v, &s, &c);
            copy_planes(&s, v, v->first, v->last, bits, 1);
            /* The writer drops zeros at the end, and writes no more bytes than the interval had shifted out and holds. */
            if (size && (data[size - 1] == 0 || size > c.read.at))
                status = VZ_BAD_VALUE;
        }
        data += size;
    }
    free(s.cells);
    return status;
}

int vz_context_cost(const vz_context *m, const vz_planes *v, const uint8_t *bits, uint64_t *costs)
{
    size_t whole = image_bits(v, v->last);
    scratch s;
    int32_t i;
    int status = open_scratch(&s, m, v);

    if (status)
        return status;
    for (i = 0; i < v->images; i++, bits += whole) {
        coder c;
        memset(&c, 0, sizeof c);
        copy_planes(&s, v, 0, v->last, (uint8_t *)bits, 0);
        code_planes(m, COUNT, v, &s, &c);
        costs[i] = c.cost;
    }
    free(s.cells);
    return VZ_OK;
}
