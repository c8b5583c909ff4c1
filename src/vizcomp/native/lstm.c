/* Steps of convolutional LSTM layers (Shi et al. 2015) and of the convolutions around them, for x86 processors with AVX2
 * and FMA. 3x3 convolutions of stride 1 are made by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast algorithms
 * for convolutional neural networks", 2016): 36 multiplications in place of 144. What the convolutions make goes through
 * the gates of the cell while it is in the cache.
 *
 * All arrays are float32 with the channels last; sums are 16 outputs wide (a panel) for six positions. */
#include "native.h"
#include "x86.h"

#include <stdlib.h>
#include <string.h>

#if VZ_X86

enum {
    PANEL = 16,  /* outputs of one sum */
    GROUP = 6,   /* positions that are summed together */
    EDGE = 4,    /* side of the outputs of a Winograd tile, */
    FIELD = 6,   /* of what it sees, */
    TERMS = 36,  /* and its products */
    TILES = 24,  /* that are in work together */
    PLACES = 192 /* positions in work together without tiles */
};

int vz_layers_possible(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* ------------------------------------------------------------------------------------------------ sums */

/* out[r][0..15] = start[0..15] + the sum over k of rows[r][k] * panel[k][0..15], for six rows. */
INLINE void sums(const float *const *rows, size_t depth, const float *panel, const float *start, float *out, size_t stride)
{
    __m256 low[GROUP], high[GROUP];
    size_t k;
    int r;

    for (r = 0; r < GROUP; r++) {
        low[r] = start ? _mm256_loadu_ps(start) : _mm256_setzero_ps();
        high[r] = start ? _mm256_loadu_ps(start + LANES) : _mm256_setzero_ps();
    }
    for (k = 0; k < depth; k++, panel += PANEL) {
        const __m256 left = _mm256_loadu_ps(panel), right = _mm256_loadu_ps(panel + LANES);
#pragma GCC unroll 6
        for (r = 0; r < GROUP; r++) {
            const __m256 value = _mm256_broadcast_ss(rows[r] + k);
            low[r] = _mm256_fmadd_ps(value, left, low[r]);
            high[r] = _mm256_fmadd_ps(value, right, high[r]);
        }
    }
    for (r = 0; r < GROUP; r++) {
        _mm256_storeu_ps(out + (size_t)r * stride, low[r]);
        _mm256_storeu_ps(out + (size_t)r * stride + LANES, high[r]);
    }
}

/* `panels` panels for `count` rows, a multiple of six: out is [row][panels * 16]. step: floats from one panel to the next. */
FAST static void multiply(const float *const *rows, size_t count, size_t depth, const float *weights, size_t step, size_t panels,
                          const float *start, float *out)
{
    size_t p, r;

    for (p = 0; p < panels; p++)
        for (r = 0; r < count; r += GROUP)
            sums(rows + r, depth, weights + p * step, start ? start + p * PANEL : NULL, out + r * panels * PANEL + p * PANEL,
                 panels * PANEL);
}

/* ------------------------------------------------------------------------------------------------ gates */

/* e to the x within 2 units of the last place: 2^n times a polynomial over half an octave to either side. */
INLINE __m256 power(__m256 x)
{
    const __m256 limit = _mm256_set1_ps(40.0f);
    __m256 n, r, y;

    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_sub_ps(_mm256_setzero_ps(), limit)), limit);
    n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
    y = _mm256_set1_ps(1.0f / 720);
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 120));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 24));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 6));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.5f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

/* 1 + e to the -x: one over the logistic function. */
INLINE __m256 closed(__m256 x)
{
    return _mm256_add_ps(_mm256_set1_ps(1.0f), power(_mm256_sub_ps(_mm256_setzero_ps(), x)));
}

/* tanh(x) / share. */
INLINE __m256 bent(__m256 x, __m256 share)
{
    const __m256 one = _mm256_set1_ps(1.0f), e = power(_mm256_add_ps(x, x));

    return _mm256_div_ps(_mm256_sub_ps(e, one), _mm256_mul_ps(share, _mm256_add_ps(e, one)));
}

/* Eight channels of a cell at one position. */
INLINE void gate(const __m256 in[4], const float *cell, float *new_hidden, float *new_cell)
{
    __m256 c = bent(in[2], closed(in[0]));

    if (cell)
        c = _mm256_add_ps(c, _mm256_div_ps(_mm256_loadu_ps(cell), closed(in[1])));
    _mm256_storeu_ps(new_cell, c);
    _mm256_storeu_ps(new_hidden, bent(c, closed(in[3])));
}

/* ------------------------------------------------------------------------------------------------ Winograd */

#define TIMES(number, x) _mm256_mul_ps(_mm256_set1_ps(number), x)
#define PLUS(a, b) _mm256_add_ps(a, b)
#define LESS(a, b) _mm256_sub_ps(a, b)
#define MORE(number, x, y) _mm256_fmadd_ps(_mm256_set1_ps(number), x, y) /* number * x + y */

INLINE void into(const __m256 *d, int from, __m256 *v, int to)
{
    const __m256 a = MORE(-4.0f, d[2 * from], d[4 * from]), b = MORE(-4.0f, d[from], d[3 * from]);
    const __m256 c = LESS(d[4 * from], d[2 * from]), e = LESS(d[3 * from], d[from]);

    v[0] = MORE(4.0f, d[0], MORE(-5.0f, d[2 * from], d[4 * from]));
    v[to] = PLUS(a, b);
    v[2 * to] = LESS(a, b);
    v[3 * to] = MORE(2.0f, e, c);
    v[4 * to] = MORE(-2.0f, e, c);
    v[5 * to] = MORE(4.0f, d[from], MORE(-5.0f, d[3 * from], d[5 * from]));
}

INLINE void out_of(const __m256 *m, int from, __m256 *y, int to)
{
    const __m256 a = PLUS(m[from], m[2 * from]), b = LESS(m[from], m[2 * from]);
    const __m256 c = PLUS(m[3 * from], m[4 * from]), d = LESS(m[3 * from], m[4 * from]);

    y[0] = PLUS(m[0], PLUS(a, c));
    y[to] = MORE(2.0f, d, b);
    y[2 * to] = MORE(4.0f, c, a);
    y[3 * to] = PLUS(MORE(8.0f, d, b), m[5 * from]);
}

/* Where a position of a layer's input lies, or zeros outside. */
static const float *seen(const vz_layer *l, const float *none, int32_t image, int32_t y, int32_t x)
{
    const size_t up = (size_t)l->up, rows = (size_t)(l->rows * l->down) / up, cols = (size_t)(l->cols * l->down) / up;

    if (y < 0 || x < 0 || y >= l->rows * l->down || x >= l->cols * l->down)
        return none;
    return l->x + ((((size_t)image * rows + (size_t)y / up) * cols + (size_t)x / up) * up * up + (size_t)y % up * up +
                   (size_t)x % up) * (size_t)l->ins;
}

typedef struct {
    int32_t image, y, x;
} corner;

static corner tile_at(const vz_layer *l, int64_t tile)
{
    const int64_t across = (l->cols + EDGE - 1) / EDGE, down = (l->rows + EDGE - 1) / EDGE;
    corner at;

    at.image = (int32_t)(tile / (across * down));
    at.y = (int32_t)(tile / across % down) * EDGE;
    at.x = (int32_t)(tile % across) * EDGE;
    return at;
}

/* v: [36][TILES][ins]. */
FAST static void tile_into(const vz_layer *l, const float *none, corner at, float *v)
{
    const float *from[TERMS];
    const size_t plane = (size_t)TILES * (size_t)l->ins;
    int32_t i, j, c;

    for (i = 0; i < FIELD; i++)
        for (j = 0; j < FIELD; j++)
            from[i * FIELD + j] = seen(l, none, at.image, at.y + i - 1, at.x + j - 1);
    for (c = 0; c < l->ins; c += LANES) {
        __m256 d[TERMS], half[TERMS];

        for (i = 0; i < TERMS; i++)
            d[i] = _mm256_loadu_ps(from[i] + c);
        for (i = 0; i < FIELD; i++)
            into(d + i, FIELD, half + i, FIELD);
        for (i = 0; i < FIELD; i++)
            into(half + i * FIELD, 1, d + i * FIELD, 1);
        for (i = 0; i < TERMS; i++)
            _mm256_storeu_ps(v + (size_t)i * plane + c, d[i]);
    }
}

/* Eight channels of a tile's 16 outputs. m: [36][TILES][width], at the tile and channel. */
INLINE void tile_out(const float *m, size_t width, __m256 y[EDGE * EDGE])
{
    __m256 half[EDGE * FIELD];
    int j;

    for (j = 0; j < FIELD; j++) {
        __m256 column[FIELD];
        int i;

        for (i = 0; i < FIELD; i++)
            column[i] = _mm256_loadu_ps(m + (size_t)(i * FIELD + j) * TILES * width);
        out_of(column, 1, half + j, FIELD);
    }
    for (j = 0; j < EDGE; j++)
        out_of(half + j * FIELD, 1, y + j * EDGE, 1);
}

typedef struct {
    float *v, *m, *from_hidden, *none;
    const float **rows;
} desk;

static void clear(desk *d)
{
    free(d->v);
    free(d->m);
    free(d->from_hidden);
    free(d->none);
    free((void *)d->rows);
}

static int furnish(desk *d, size_t v, size_t m, size_t from_hidden, size_t none, size_t rows)
{
    d->v = malloc(v * sizeof(float));
    d->m = malloc(m * sizeof(float));
    d->from_hidden = malloc(from_hidden * sizeof(float));
    d->none = calloc(none, sizeof(float));
    d->rows = malloc(rows * sizeof *d->rows);
    if (d->v && d->m && d->from_hidden && d->none && d->rows)
        return VZ_OK;
    clear(d);
    return VZ_NO_MEMORY;
}

/* A block of 32 outputs, the four gates of eight channels, of the tiles in work. */
FAST static void gates_of_tiles(const vz_layer *l, const desk *d, const corner *at, int32_t tiles, int32_t block)
{
    const size_t channels = (size_t)l->channels, width = 4 * LANES;
    __m256 made[4][EDGE * EDGE];
    int32_t t, p, g;

    for (t = 0; t < tiles; t++) {
        for (g = 0; g < 4; g++) {
            const __m256 bias = _mm256_loadu_ps(l->bias + (size_t)block * width + (size_t)g * LANES);

            tile_out(d->m + (size_t)t * width + (size_t)g * LANES, width, made[g]);
            for (p = 0; p < EDGE * EDGE; p++)
                made[g][p] = _mm256_add_ps(made[g][p], bias);
        }
        for (p = 0; p < EDGE * EDGE; p++) {
            const int32_t y = at[t].y + p / EDGE, x = at[t].x + p % EDGE;
            const size_t place = (((size_t)at[t].image * (size_t)l->rows + (size_t)y) * (size_t)l->cols + (size_t)x) * channels +
                                 (size_t)block * LANES;
            __m256 in[4];

            if (y >= l->rows || x >= l->cols)
                continue;
            for (g = 0; g < 4; g++) {
                in[g] = made[g][p];
                if (l->h)
                    in[g] = _mm256_add_ps(
                        in[g], _mm256_loadu_ps(d->from_hidden + ((size_t)t * EDGE * EDGE + (size_t)p) * width + (size_t)g * LANES));
            }
            gate(in, l->c ? l->c + place : NULL, l->new_h + place, l->new_c + place);
        }
    }
}

/* A panel of outputs of a plain convolution. */
FAST static void outputs_of_tiles(const vz_layer *l, const desk *d, const corner *at, int32_t tiles, int32_t panel)
{
    __m256 made[EDGE * EDGE];
    int32_t t, p, half;

    for (t = 0; t < tiles; t++)
        for (half = 0; half < PANEL; half += LANES) {
            const size_t channel = (size_t)panel * PANEL + (size_t)half;
            const __m256 bias = _mm256_loadu_ps(l->bias + channel);

            tile_out(d->m + (size_t)t * PANEL + half, PANEL, made);
            for (p = 0; p < EDGE * EDGE; p++) {
                const int32_t y = at[t].y + p / EDGE, x = at[t].x + p % EDGE;

                if (y < l->rows && x < l->cols)
                    _mm256_storeu_ps(l->new_h +
                                         (((size_t)at[t].image * (size_t)l->rows + (size_t)y) * (size_t)l->cols + (size_t)x) *
                                             (size_t)l->channels + channel,
                                     _mm256_add_ps(made[p], bias));
            }
        }
}

/* Rows of the hidden state under the tiles, zeros outside the picture. */
static void rows_of_tiles(const vz_layer *l, const desk *d, const corner *at, int32_t tiles)
{
    int32_t t, p;

    for (t = 0; t < TILES; t++)
        for (p = 0; p < EDGE * EDGE; p++) {
            const int32_t y = at[t].y + p / EDGE, x = at[t].x + p % EDGE;
            const size_t place = ((size_t)at[t].image * (size_t)l->rows + (size_t)y) * (size_t)l->cols + (size_t)x;

            d->rows[t * EDGE * EDGE + p] =
                t < tiles && y < l->rows && x < l->cols ? l->h + place * (size_t)l->channels : d->none;
        }
}

FAST static int by_tiles(const vz_layer *l, int64_t first, int64_t last)
{
    const size_t ins = (size_t)l->ins, channels = (size_t)l->channels, most = ins > channels ? ins : channels;
    const size_t panels = l->gates ? 2 : 1, width = panels * PANEL;
    const int32_t blocks = l->gates ? l->channels / LANES : l->channels / PANEL;
    desk d;
    int64_t start;
    int32_t t, block, k;

    if (furnish(&d, TERMS * TILES * ins, TERMS * TILES * width, TILES * EDGE * EDGE * width, most, TILES * EDGE * EDGE))
        return VZ_NO_MEMORY;
    memset(d.v, 0, TERMS * TILES * ins * sizeof(float));
    for (start = first; start < last; start += TILES) {
        const int32_t tiles = (int32_t)(last - start < TILES ? last - start : TILES);
        const size_t used = ((size_t)tiles + GROUP - 1) / GROUP * GROUP;
        const float *rows[TILES];
        corner at[TILES];

        for (t = 0; t < TILES; t++)
            at[t] = tile_at(l, t < tiles ? start + t : start);
        for (t = 0; t < tiles; t++)
            tile_into(l, d.none, at[t], d.v + (size_t)t * ins);
        if (l->h)
            rows_of_tiles(l, &d, at, tiles);
        for (block = 0; block < blocks; block++) {
            for (k = 0; k < TERMS; k++) {
                for (t = 0; t < TILES; t++)
                    rows[t] = d.v + ((size_t)k * TILES + (size_t)t) * ins;
                multiply(rows, used, ins, l->kernel + ((size_t)block * TERMS + (size_t)k) * panels * ins * PANEL, ins * PANEL,
                         panels, NULL, d.m + (size_t)k * TILES * width);
            }
            if (l->h)
                multiply(d.rows, used * EDGE * EDGE, channels, l->hidden + (size_t)block * panels * channels * PANEL,
                         channels * PANEL, panels, NULL, d.from_hidden);
            if (l->gates)
                gates_of_tiles(l, &d, at, tiles, block);
            else
                outputs_of_tiles(l, &d, at, tiles, block);
        }
    }
    clear(&d);
    return VZ_OK;
}

/* ------------------------------------------------------------------------------------------------ stride 2 */

/* What a position sees, in one row: nine positions of the input, and its hidden state. */
static void see(const vz_layer *l, const desk *d, int64_t place, float *row)
{
    const size_t ins = (size_t)l->ins, channels = (size_t)l->channels;
    const int32_t image = (int32_t)(place / ((int64_t)l->rows * l->cols));
    const int32_t y = (int32_t)(place / l->cols % l->rows), x = (int32_t)(place % l->cols);
    int32_t i, j;

    for (i = -1; i <= 1; i++)
        for (j = -1; j <= 1; j++, row += ins)
            memcpy(row, seen(l, d->none, image, l->down * y + i, l->down * x + j), ins * sizeof(float));
    if (l->h)
        memcpy(row, l->h + (size_t)place * channels, channels * sizeof(float));
}

FAST static int by_places(const vz_layer *l, int64_t first, int64_t last)
{
    const size_t ins = (size_t)l->ins, channels = (size_t)l->channels, whole = 9 * ins + channels;
    const size_t depth = l->h ? whole : 9 * ins, width = 4 * LANES;
    desk d;
    int64_t start;
    int32_t i, block, g;

    if (furnish(&d, PLACES * whole, PLACES * width, 1, ins, PLACES))
        return VZ_NO_MEMORY;
    memset(d.v, 0, PLACES * whole * sizeof(float));
    for (i = 0; i < PLACES; i++)
        d.rows[i] = d.v + (size_t)i * whole;
    for (start = first; start < last; start += PLACES) {
        const int32_t places = (int32_t)(last - start < PLACES ? last - start : PLACES);
        const size_t used = ((size_t)places + GROUP - 1) / GROUP * GROUP;

        for (i = 0; i < places; i++)
            see(l, &d, start + i, d.v + (size_t)i * whole);
        for (block = 0; block < l->channels / LANES; block++) {
            multiply(d.rows, used, depth, l->kernel + (size_t)block * 2 * whole * PANEL, whole * PANEL, 2,
                     l->bias + (size_t)block * width, d.m);
            for (i = 0; i < places; i++) {
                const size_t place = (size_t)(start + i) * channels + (size_t)block * LANES;
                __m256 in[4];

                for (g = 0; g < 4; g++)
                    in[g] = _mm256_loadu_ps(d.m + (size_t)i * width + (size_t)g * LANES);
                gate(in, l->c ? l->c + place : NULL, l->new_h + place, l->new_c + place);
            }
        }
    }
    clear(&d);
    return VZ_OK;
}

int64_t vz_layer_parts(const vz_layer *l)
{
    if (l->down == 1)
        return (int64_t)l->images * ((l->rows + EDGE - 1) / EDGE) * ((l->cols + EDGE - 1) / EDGE);
    return (int64_t)l->images * l->rows * l->cols;
}

int vz_layer_run(const vz_layer *l, int64_t first, int64_t last)
{
    return l->down == 1 ? by_tiles(l, first, last) : by_places(l, first, last);
}

/* ------------------------------------------------------------------------------------------------ single positions */

FAST static void bend(float *values, size_t count)
{
    size_t i;

    for (i = 0; i < count; i += LANES)
        _mm256_storeu_ps(values + i, bent(_mm256_loadu_ps(values + i), _mm256_set1_ps(1.0f)));
}

int vz_points(const float *x, size_t places, size_t ins, size_t outs, const float *kernel, const float *bias, int tanh, float *out)
{
    desk d;
    size_t start, i;

    if (furnish(&d, 1, PLACES * outs, 1, ins, PLACES))
        return VZ_NO_MEMORY;
    for (start = 0; start < places; start += PLACES) {
        const size_t count = places - start < PLACES ? places - start : PLACES;

        for (i = 0; i < PLACES; i++)
            d.rows[i] = i < count ? x + (start + i) * ins : d.none;
        multiply(d.rows, (count + GROUP - 1) / GROUP * GROUP, ins, kernel, ins * PANEL, outs / PANEL, bias, d.m);
        if (tanh)
            bend(d.m, count * outs);
        memcpy(out + start * outs, d.m, count * outs * sizeof(float));
    }
    clear(&d);
    return VZ_OK;
}

#else

int vz_layers_possible(void)
{
    return 0;
}

int64_t vz_layer_parts(const vz_layer *l)
{
    (void)l;
    return 0;
}

int vz_layer_run(const vz_layer *l, int64_t first, int64_t last)
{
    (void)l;
    (void)first;
    (void)last;
    return VZ_BAD_ARGUMENT;
}

int vz_points(const float *x, size_t places, size_t ins, size_t outs, const float *kernel, const float *bias, int tanh, float *out)
{
    (void)x;
    (void)places;
    (void)ins;
    (void)outs;
    (void)kernel;
    (void)bias;
    (void)tanh;
    (void)out;
    return VZ_BAD_ARGUMENT;
}

#endif
