/* Block loops over pixels and real-valued coefficients: colour, forward DCT, quantisation with rate-distortion decisions. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ forward DCT */

/* 0.5 * c(u) * cos((2x + 1) u pi / 16) as [x][u], c(0) = sqrt(1/2): the rows of T.81 A.3.3 made orthonormal. */
static const float basis[8][8] = {
    {0.353553391f, 0.490392640f, 0.461939766f, 0.415734806f, 0.353553391f, 0.277785117f, 0.191341716f, 0.097545161f},
    {0.353553391f, 0.415734806f, 0.191341716f, -0.097545161f, -0.353553391f, -0.490392640f, -0.461939766f, -0.277785117f},
    {0.353553391f, 0.277785117f, -0.191341716f, -0.490392640f, -0.353553391f, 0.097545161f, 0.461939766f, 0.415734806f},
    {0.353553391f, 0.097545161f, -0.461939766f, -0.277785117f, 0.353553391f, 0.415734806f, -0.191341716f, -0.490392640f},
    {0.353553391f, -0.097545161f, -0.461939766f, 0.277785117f, 0.353553391f, -0.415734806f, -0.191341716f, 0.490392640f},
    {0.353553391f, -0.277785117f, -0.191341716f, 0.490392640f, -0.353553391f, -0.097545161f, 0.461939766f, -0.415734806f},
    {0.353553391f, -0.415734806f, 0.191341716f, 0.097545161f, -0.353553391f, 0.490392640f, -0.461939766f, 0.277785117f},
    {0.353553391f, -0.490392640f, 0.461939766f, -0.415734806f, 0.353553391f, -0.277785117f, 0.191341716f, -0.097545161f}};

/* Columns by their even and odd halves, rows by the matrix: in both the eight lanes are independent, so that compilers
 * vectorise without transposing. */
static void forward_block(const float *samples, size_t stride, float *out)
{
    float columns[8][8];
    int u, x, y;

    for (x = 0; x < 8; x++) {
        float s0 = samples[x] + samples[7 * stride + x], d0 = samples[x] - samples[7 * stride + x];
        float s1 = samples[stride + x] + samples[6 * stride + x], d1 = samples[stride + x] - samples[6 * stride + x];
        float s2 = samples[2 * stride + x] + samples[5 * stride + x], d2 = samples[2 * stride + x] - samples[5 * stride + x];
        float s3 = samples[3 * stride + x] + samples[4 * stride + x], d3 = samples[3 * stride + x] - samples[4 * stride + x];
        float e0 = s0 + s3, e1 = s1 + s2, f0 = s0 - s3, f1 = s1 - s2;
        columns[0][x] = 0.353553391f * (e0 + e1);
        columns[4][x] = 0.353553391f * (e0 - e1);
        columns[2][x] = 0.461939766f * f0 + 0.191341716f * f1;
        columns[6][x] = 0.191341716f * f0 - 0.461939766f * f1;
        columns[1][x] = 0.490392640f * d0 + 0.415734806f * d1 + 0.277785117f * d2 + 0.097545161f * d3;
        columns[3][x] = 0.415734806f * d0 - 0.097545161f * d1 - 0.490392640f * d2 - 0.277785117f * d3;
        columns[5][x] = 0.277785117f * d0 - 0.490392640f * d1 + 0.097545161f * d2 + 0.415734806f * d3;
        columns[7][x] = 0.097545161f * d0 - 0.277785117f * d1 + 0.415734806f * d2 - 0.490392640f * d3;
    }
    for (y = 0; y < 8; y++) {
        float row[8];
        for (u = 0; u < 8; u++)
            row[u] = columns[y][0] * basis[0][u];
        for (x = 1; x < 8; x++)
            for (u = 0; u < 8; u++)
                row[u] += columns[y][x] * basis[x][u];
        memcpy(out + 8 * y, row, sizeof row);
    }
}

/* One row of pixels as float planes, the last pixel repeated up to `padded`. */
static void load_row(const uint8_t *row, size_t width, size_t padded, int channels, float *restrict r, float *restrict g,
                     float *restrict b)
{
    size_t x;

    if (channels == 1) {
        for (x = 0; x < width; x++)
            r[x] = row[x];
        for (; x < padded; x++)
            r[x] = r[width - 1];
        return;
    }
    for (x = 0; x < width; x++) {
        r[x] = row[3 * x];
        g[x] = row[3 * x + 1];
        b[x] = row[3 * x + 2];
    }
    for (; x < padded; x++) {
        r[x] = r[width - 1];
        g[x] = g[width - 1];
        b[x] = b[width - 1];
    }
}

static void add_chroma(const float *restrict r, const float *restrict g, const float *restrict b, size_t padded, int hx,
                       float weight, float *restrict cb, float *restrict cr)
{
    size_t x;

    if (hx == 1)
        for (x = 0; x < padded; x++) {
            cb[x] += weight * (-0.168735892f * r[x] - 0.331264108f * g[x] + 0.5f * b[x]);
            cr[x] += weight * (0.5f * r[x] - 0.418687589f * g[x] - 0.081312411f * b[x]);
        }
    else
        for (x = 0; x < padded / 2; x++) {
            float rr = r[2 * x] + r[2 * x + 1], gg = g[2 * x] + g[2 * x + 1], bb = b[2 * x] + b[2 * x + 1];
            cb[x] += weight * (-0.168735892f * rr - 0.331264108f * gg + 0.5f * bb);
            cr[x] += weight * (0.5f * rr - 0.418687589f * gg - 0.081312411f * bb);
        }
}

int vz_forward(const uint8_t *pixels, size_t height, size_t width, int channels, int hx, int vy, float *const out[3])
{
    size_t mcu_width, mcu_height, mcu_cols, mcu_rows, padded, chroma, row, x, y, planes;
    float *work, *luma, *cb, *cr, *r, *g, *b;
    float weight = 1.0f / (float)(hx * vy);

    if (height < 1 || width < 1 || (channels != 1 && channels != 3) || hx < 1 || hx > 2 || vy < 1 || vy > 2)
        return VZ_BAD_ARGUMENT;
    if (width > 65535 || height > 65535)
        return VZ_BAD_ARGUMENT;
    if (channels == 1)
        hx = vy = 1;
    mcu_width = 8 * (size_t)hx;
    mcu_height = 8 * (size_t)vy;
    mcu_cols = (width + mcu_width - 1) / mcu_width;
    mcu_rows = (height + mcu_height - 1) / mcu_height;
    padded = mcu_cols * mcu_width;
    chroma = padded / (size_t)hx;
    planes = padded * mcu_height + 2 * chroma * 8 + 3 * padded;
    work = malloc(planes * sizeof *work);
    if (!work)
        return VZ_NO_MEMORY;
    luma = work;
    cb = luma + padded * mcu_height;
    cr = cb + chroma * 8;
    r = cr + chroma * 8;
    g = r + padded;
    b = g + padded;
    for (row = 0; row < mcu_rows; row++) {
        if (channels == 3)
            memset(cb, 0, 2 * chroma * 8 * sizeof *cb);
        for (y = 0; y < mcu_height; y++) {
            size_t source = row * mcu_height + y;
            float *restrict line = luma + y * padded;
            if (source >= height)
                source = height - 1;
            load_row(pixels + source * width * (size_t)channels, width, padded, channels, r, g, b);
            if (channels == 1) {
                for (x = 0; x < padded; x++)
                    line[x] = r[x] - 128.0f;
            } else {
                for (x = 0; x < padded; x++)
                    line[x] = 0.299f * r[x] + 0.587f * g[x] + 0.114f * b[x] - 128.0f;
                add_chroma(r, g, b, padded, hx, weight, cb + y / (size_t)vy * chroma, cr + y / (size_t)vy * chroma);
            }
        }
        for (y = 0; y < (size_t)vy; y++)
            for (x = 0; x < padded / 8; x++)
                forward_block(luma + y * 8 * padded + x * 8, padded,
                              out[0] + ((row * (size_t)vy + y) * (padded / 8) + x) * 64);
        if (channels == 3)
            for (x = 0; x < mcu_cols; x++) {
                forward_block(cb + x * 8, chroma, out[1] + (row * mcu_cols + x) * 64);
                forward_block(cr + x * 8, chroma, out[2] + (row * mcu_cols + x) * 64);
            }
    }
    free(work);
    return VZ_OK;
}

/* ------------------------------------------------------------------------------------------------ halving */

/* Two blocks to the block of their pixels' pairwise means, along one axis: T.81 A.3.3's matrix, times the means of pairs,
 * times its inverse. [frequency of the first block][of the result]; the second block's differs in sign where their sum is
 * odd. */
static void halving_matrix(float matrix[8][8])
{
    int u, v, x;

    for (v = 0; v < 8; v++)
        for (u = 0; u < 8; u++) {
            double sum = 0.0;
            for (x = 0; x < 4; x++)
                sum += (double)basis[x][u] * ((double)basis[2 * x][v] + (double)basis[2 * x + 1][v]) / 2.0;
            matrix[v][u] = (float)sum;
        }
}

/* Along the columns, whose eight lanes are independent: compilers vectorise them. */
static void halve_pair(const float *restrict first, const float *restrict second, const float matrix[8][8],
                       float *restrict out)
{
    float even[64], odd[64];
    int u, v, x;

    for (v = 0; v < 8; v++) {
        float sign = v & 1 ? -1.0f : 1.0f;
        for (x = 8 * v; x < 8 * v + 8; x++) {
            even[x] = first[x] + sign * second[x];
            odd[x] = first[x] - sign * second[x];
        }
    }
    for (u = 0; u < 8; u++) {
        const float *from = u & 1 ? odd : even;
        float row[8];
        for (x = 0; x < 8; x++)
            row[x] = matrix[0][u] * from[x];
        for (v = 1; v < 8; v++)
            for (x = 0; x < 8; x++)
                row[x] += matrix[v][u] * from[8 * v + x];
        memcpy(out + 8 * u, row, sizeof row);
    }
}

static void transpose(const float *restrict block, float *restrict out)
{
    int v, u;

    for (v = 0; v < 8; v++)
        for (u = 0; u < 8; u++)
            out[8 * u + v] = block[8 * v + u];
}

/* A block of the grid as real values; beyond the grid the last block, mirrored: its odd frequencies change their sign. */
static void load_block(const int16_t *blocks, size_t rows, size_t cols, size_t row, size_t col, const float unit[64],
                       float *restrict out)
{
    int flip_y = row >= rows, flip_x = col >= cols, v, u;
    const int16_t *block = blocks + ((flip_y ? rows - 1 : row) * cols + (flip_x ? cols - 1 : col)) * 64;

    for (v = 0; v < 64; v++)
        out[v] = (float)block[v] * unit[v];
    if (flip_y)
        for (v = 1; v < 8; v += 2)
            for (u = 0; u < 8; u++)
                out[8 * v + u] = -out[8 * v + u];
    if (flip_x)
        for (v = 0; v < 8; v++)
            for (u = 1; u < 8; u += 2)
                out[8 * v + u] = -out[8 * v + u];
}

int vz_halve(const int16_t *blocks, size_t rows, size_t cols, const float unit[64], size_t down, size_t across,
             size_t out_rows, size_t out_cols, float *out)
{
    float matrix[8][8], single[2][64], turned[2][64], half[64], high[2][64];
    size_t row, col, i, j;

    if (!rows || !cols || down < 1 || down > 2 || across < 1 || across > 2)
        return VZ_BAD_ARGUMENT;
    halving_matrix(matrix);
    for (row = 0; row < out_rows; row++)
        for (col = 0; col < out_cols; col++) {
            float *block = out + (row * out_cols + col) * 64;
            for (i = 0; i < down; i++) {
                float *to = down == 2 ? high[i] : block;
                for (j = 0; j < across; j++)
                    load_block(blocks, rows, cols, row * down + i, col * across + j, unit, across == 2 ? single[j] : to);
                if (across == 2) {
                    transpose(single[0], turned[0]);
                    transpose(single[1], turned[1]);
                    halve_pair(turned[0], turned[1], matrix, half);
                    transpose(half, to);
                }
            }
            if (down == 2)
                halve_pair(high[0], high[1], matrix, block);
        }
    return VZ_OK;
}

/* ------------------------------------------------------------------------------------------------ quantisation */

static int category(int magnitude)
{
    int size = 0;

    while (magnitude) {
        magnitude >>= 1;
        size++;
    }
    return size;
}

typedef struct {
    float bits[16][11]; /* of a run and a category, the value's own bits included */
    float zeros[4];     /* of so many runs of 16 zeros */
    float end;          /* of the end of the block */
    uint8_t size[1024]; /* category of a magnitude */
} prices;

static void price_list(prices *p, const uint8_t lengths[256])
{
    int run, size, i;

    for (run = 0; run < 16; run++)
        for (size = 0; size < 11; size++)
            p->bits[run][size] = (float)((lengths[run << 4 | size] ? lengths[run << 4 | size] : 16) + size);
    for (i = 0; i < 4; i++)
        p->zeros[i] = (float)(i * (lengths[0xF0] ? lengths[0xF0] : 16));
    p->end = (float)(lengths[0] ? lengths[0] : 16);
    for (i = 0; i < 1024; i++)
        p->size[i] = (uint8_t)category(i);
}

/* The cheapest choice for the AC coefficients of one block: the shortest path over its candidates in zigzag order, where an
 * edge codes one value after a run of zeros. Costs are relative to dropping everything: keeping q for a real value a
 * changes the squared error by q (q - 2a), which counts `worth` times. (Crouse & Ramchandran, IEEE Trans. Image Processing 6 (1997), section III.) */
static void decide(const prices *p, float lambda, const float *ratio, const float worth[64], const uint8_t exact[64],
                   const uint8_t *place, int16_t *block)
{
    float total[64], gain[2], best_total;
    uint8_t position[64], from[64];
    int16_t choice[64];
    int n = 0, i, j, best, k;
    uint64_t nonzero = 0;

    for (k = 0; k < 64; k += 8) {
        uint64_t halves[2];
        memcpy(halves, block + k, 16);
        if (halves[0] | halves[1])
            for (i = k; i < k + 8; i++)
                nonzero |= (uint64_t)(block[i] != 0) << place[i];
    }
    nonzero &= ~UINT64_C(1);
    if (!nonzero)
        return;
    position[0] = 0;
    total[0] = 0.0f;
    for (k = 1; k < 64; k++) {
        int at, value, magnitude, size[2], choices = 1, c;
        float least = 3.0e38f;
        if (!(nonzero >> k))
            break;
        if (!(nonzero >> k & 1))
            continue;
        at = vz_zigzag[k];
        value = block[at];
        magnitude = value < 0 ? -value : value;
        gain[0] = worth[at] * (float)magnitude * ((float)magnitude - 2.0f * ratio[at]);
        size[0] = p->size[magnitude];
        size[1] = 0;
        gain[1] = 0.0f;
        if (magnitude > 1 && !exact[at]) {
            int lower = magnitude - 1;
            float other = worth[at] * (float)lower * ((float)lower - 2.0f * ratio[at]);
            if (p->size[lower] == size[0]) { /* the same price: the nearer one */
                if (other < gain[0]) {
                    gain[0] = other;
                    value = value < 0 ? -lower : lower;
                }
            } else {
                gain[1] = other;
                size[1] = p->size[lower];
                choices = 2;
            }
        }
        n++;
        position[n] = (uint8_t)k;
        from[n] = 0;
        choice[n] = (int16_t)value;
        for (c = 0; c < choices; c++) {
            for (j = n - 1; j >= 0; j--) {
                int run = k - position[j] - 1;
                float cost = total[j] + gain[c] + lambda * (p->zeros[run >> 4] + p->bits[run & 15][size[c]]);
                if (cost < least) {
                    least = cost;
                    from[n] = (uint8_t)j;
                    choice[n] = (int16_t)(c == 0 ? value : value < 0 ? value + 1 : value - 1);
                }
            }
        }
        total[n] = least;
    }
    best = 0;
    best_total = lambda * p->end;
    for (i = 1; i <= n; i++) {
        float cost = total[i] + (position[i] < 63 ? lambda * p->end : 0.0f);
        if (cost < best_total) {
            best_total = cost;
            best = i;
        }
    }
    for (i = n; i > 0; i--) {
        int at = vz_zigzag[position[i]];
        if (i == best) {
            block[at] = choice[i];
            best = from[i];
        } else {
            block[at] = 0;
        }
    }
}

static float legal_dc(float x)
{
    x = x < 1023.0f ? x : 1023.0f; /* NaN too ends at a legal value */
    return x > -1024.0f ? x : -1024.0f;
}

static int nearest_dc(float x)
{
    return (int)(legal_dc(x) + 1024.5f) - 1024; /* floor, as the sum is not negative */
}

int vz_quantise(const float *values, size_t blocks, const float table[64], const float *dead_zone, const float *rate,
                const float worth[64], const uint8_t lengths[256], const uint8_t exact[64], int16_t *out)
{
    uint8_t place[64];
    prices p;
    size_t at;
    int k, any_exact = 0;

    for (k = 0; k < 64; k++) {
        if (!(table[k] > 0.0f && worth[k] > 0.0f))
            return VZ_BAD_ARGUMENT;
        place[vz_zigzag[k]] = (uint8_t)k;
        any_exact |= exact[k];
    }
    price_list(&p, lengths);
    for (at = 0; at < blocks; at++) {
        const float *block = values + at * 64;
        int16_t *result = out + at * 64;
        float ratio[64];
        float whole = 1.0f - dead_zone[at];

        for (k = 0; k < 64; k++) {
            float x = block[k] / table[k], a = x < 0.0f ? -x : x, q;
            int magnitude;
            ratio[k] = a;
            q = a + whole;
            q = q > 0.0f ? q : 0.0f;
            q = q < 1023.0f ? q : 1023.0f; /* NaN too ends at a legal value */
            magnitude = (int)q;
            result[k] = (int16_t)(x < 0.0f ? -magnitude : magnitude);
        }
        if (any_exact)
            for (k = 1; k < 64; k++)
                if (exact[k] && result[k]) {
                    float a = ratio[k] < 1023.0f ? ratio[k] + 0.5f : 1023.0f;
                    result[k] = (int16_t)(block[k] < 0.0f ? -(int)a : (int)a);
                }
        if (rate && rate[at] > 0.0f) {
            result[0] = 0;
            decide(&p, rate[at], ratio, worth, exact, place, result);
        }
        result[0] = (int16_t)nearest_dc(block[0] / table[0]);
    }
    return VZ_OK;
}

enum { SPAN = 2, CHOICES = 2 * SPAN + 1, CATEGORIES = 13, DIFFERENCES = 2048 };

/* The next block's place in scan order: MCU by MCU, and row by row within each. */
typedef struct {
    size_t cols, down, across;
    size_t mcu_row, mcu_col, y, x;
} walk;

static size_t next_block(walk *w)
{
    size_t at = (w->mcu_row * w->down + w->y) * w->cols + w->mcu_col * w->across + w->x;

    if (++w->x == w->across) {
        w->x = 0;
        if (++w->y == w->down) {
            w->y = 0;
            if (++w->mcu_col == w->cols / w->across) {
                w->mcu_col = 0;
                w->mcu_row++;
            }
        }
    }
    return at;
}

/* A value that DC may take: the nearest, or one of SPAN on either side where bits have a price. */
static int choice_of(float ratio, float price, int index)
{
    int value = nearest_dc(ratio);

    if (price > 0.0f)
        value += index - SPAN;
    return value < -1024 ? -1024 : value > 1023 ? 1023 : value;
}

/* Bits of a DC difference by its magnitude: -log2 of the share of its category, and the value's own bits. */
static void dc_bits(const int16_t *dc, walk w, size_t blocks, float bits[DIFFERENCES])
{
    double counts[CATEGORIES];
    size_t i;
    int k, before = 0;

    for (k = 0; k < CATEGORIES; k++)
        counts[k] = 0.5;
    for (i = 0; i < blocks; i++) {
        int value = dc[next_block(&w)], difference = value - before;
        counts[category(difference < 0 ? -difference : difference)] += 1.0;
        before = value;
    }
    for (k = 0; k < DIFFERENCES; k++) {
        int size = category(k);
        bits[k] = (float)(size - log2(counts[size] / ((double)blocks + 0.5 * CATEGORIES)));
    }
}

int vz_settle_dc(const float *ratio, const float *rate, size_t rows, size_t cols, size_t down, size_t across, int16_t *dc)
{
    size_t blocks = rows * cols, i, at;
    const walk start = {cols, down, across, 0, 0, 0, 0};
    uint8_t *from;
    float bits[DIFFERENCES];
    int round, j, k;

    if (!down || !across || rows % down || cols % across)
        return VZ_BAD_ARGUMENT;
    for (at = 0; at < blocks; at++)
        dc[at] = (int16_t)nearest_dc(ratio[at]);
    from = malloc(blocks * CHOICES);
    if (!from)
        return VZ_NO_MEMORY;
    for (round = 0; round < 2; round++) { /* the second with the bits that the first one's result has */
        double total[2][CHOICES] = {{0.0}};
        int value[2][CHOICES] = {{0}}, count[2] = {1, 0}, best = 0;
        walk w = start;

        dc_bits(dc, start, blocks, bits);
        for (i = 0; i < blocks; i++) {
            int now = (int)(i + 1) & 1, then = !now;
            float x, price;
            at = next_block(&w);
            price = rate[at] > 0.0f ? rate[at] : 0.0f;
            x = legal_dc(ratio[at]);
            count[now] = price > 0.0f ? CHOICES : 1;
            for (j = 0; j < count[now]; j++) {
                int q = choice_of(x, price, j);
                double least = 1e300, error = ((double)x - q) * ((double)x - q);
                for (k = 0; k < count[then]; k++) {
                    int difference = q - value[then][k];
                    double cost = total[then][k] + price * bits[difference < 0 ? -difference : difference];
                    if (cost < least) {
                        least = cost;
                        from[i * CHOICES + j] = (uint8_t)k;
                    }
                }
                total[now][j] = least + error;
                value[now][j] = q;
            }
        }
        for (j = 1; j < count[blocks & 1]; j++)
            if (total[blocks & 1][j] < total[blocks & 1][best])
                best = j;
        /* back along the path: choices first, since the walk only goes forward */
        for (i = blocks; i-- > 0;) {
            int before = from[i * CHOICES + best];
            from[i * CHOICES] = (uint8_t)best;
            best = before;
        }
        w = start;
        for (i = 0; i < blocks; i++) {
            at = next_block(&w);
            dc[at] = (int16_t)choice_of(ratio[at], rate[at], from[i * CHOICES]);
        }
    }
    free(from);
    return VZ_OK;
}
