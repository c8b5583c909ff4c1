/* Convolutions of small networks that look at photos, for x86 processors with AVX2: sums of products of 16-bit integers, twice
 * as many at a time as of floating point numbers. Activations are rounded to steps of 1 / levels of their largest value, weights
 * to steps of their output's own; sums are exact in 32 bits.
 *
 * All arrays have the channels last. A sum is made for six positions and 16 outputs, or the last eight. What one position
 * sees lies in `segments` runs of numbers that are next to each other, equally far from the position for all of them. */
#include "native.h"
#include "x86.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if VZ_X86

enum {
    GROUP = 6,   /* positions that are summed together */
    PANEL = 16,  /* outputs that are summed together */
    CHUNK = 96,  /* positions for which weights are fetched once */
    FEW = 48,    /* the same in a separable block, whose values in between stay in the cache */
    SLACK = 32,  /* items behind a buffer that may be read */
    TAPS = 9     /* of a depthwise kernel */
};

/* Activations from here on are refused, so that nothing that is made of smaller ones is infinite. */
#define MOST 1e18f
#define ZERO {0, 0, 0, 0, 0, 0, 0, 0}

/* ------------------------------------------------------------------------------------------------ sums */

INLINE __m256i pair_at(const int16_t *from)
{
    int32_t both;

    memcpy(&both, from, sizeof both);
    return _mm256_set1_epi32(both);
}

/* Every sum has a name, and is added to where it is: compilers keep the sums of an array in memory, and move so many loads before
 * the additions that some sums do not fit into registers. */
#define ADD_TO(sum, x) __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x))
#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5)
#define START(r) __m256i left##r = _mm256_setzero_si256(), right##r = _mm256_setzero_si256();
#define START_LEFT(r) __m256i left##r = _mm256_setzero_si256();
#define GO_TO(r) const int16_t *at##r = rows[r] + offsets[s];
#define ADD_LEFT(r) ADD_TO(left##r, _mm256_madd_epi16(pair_at(at##r + 2 * k), left));
#define ADD(r)                                              \
    {                                                       \
        const __m256i value = pair_at(at##r + 2 * k);       \
                                                            \
        ADD_TO(left##r, _mm256_madd_epi16(value, left));    \
        ADD_TO(right##r, _mm256_madd_epi16(value, right));  \
    }
#define KEEP_LEFT(r) made[2 * r] = left##r;
#define KEEP(r) KEEP_LEFT(r) made[2 * r + 1] = right##r;

/* Sums over segments first..last - 1 for six positions and 16 outputs. */
INLINE void sums(const int16_t *const *rows, const int32_t *offsets, int first, int last, size_t pairs, const int16_t *panel,
                 __m256i made[2 * GROUP])
{
    const int16_t *weights = panel + (size_t)first * pairs * 2 * PANEL;
    size_t k;
    int s;
    EACH(START)

    for (s = first; s < last; s++) {
        EACH(GO_TO)

        for (k = 0; k < pairs; k++, weights += 2 * PANEL) {
            const __m256i left = _mm256_loadu_si256((const __m256i *)weights);
            const __m256i right = _mm256_loadu_si256((const __m256i *)(weights + PANEL));

            EACH(ADD)
        }
    }
    EACH(KEEP)
}

/* The same for eight outputs. */
INLINE void few_sums(const int16_t *const *rows, const int32_t *offsets, int first, int last, size_t pairs, const int16_t *panel,
                     __m256i made[2 * GROUP])
{
    const int16_t *weights = panel + (size_t)first * pairs * PANEL;
    size_t k;
    int s;
    EACH(START_LEFT)

    for (s = first; s < last; s++) {
        EACH(GO_TO)

        for (k = 0; k < pairs; k++, weights += PANEL) {
            const __m256i left = _mm256_loadu_si256((const __m256i *)weights);

            EACH(ADD_LEFT)
        }
    }
    EACH(KEEP_LEFT)
}

/* The first `count` (0..8) lanes. */
INLINE __m256i lanes(int count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE __m256 size_of(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

INLINE float largest(__m256 most)
{
    float each[LANES], found = 0;
    int i;

    _mm256_storeu_ps(each, most);
    for (i = 0; i < LANES; i++)
        found = each[i] > found ? each[i] : found;
    return found;
}

/* The largest size of a number; not finite where one of them is not. */
FAST static float reach(const float *x, size_t count)
{
    const __m256 infinite = _mm256_set1_ps(INFINITY);
    __m256 most = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    size_t i;

    for (i = 0; i + LANES <= count; i += LANES) {
        const __m256 value = size_of(_mm256_loadu_ps(x + i));

        most = _mm256_max_ps(most, value);
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(value, infinite, _CMP_NLT_UQ));
    }
    for (; i < count; i++) {
        const __m256 value = size_of(_mm256_set1_ps(x[i]));

        most = _mm256_max_ps(most, value);
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(value, infinite, _CMP_NLT_UQ));
    }
    return _mm256_movemask_ps(odd) ? INFINITY : largest(most);
}

/* Real numbers to integers of at most `levels`, where `most` is the largest; all 0 where their steps could not be told. */
FAST static void rounded(const float *x, size_t count, float most, int32_t levels, int16_t *out)
{
    const float factor = most > 1e-30f ? (float)levels / most : 0;
    const __m256 times = _mm256_set1_ps(factor);
    size_t i;

    for (i = 0; i + 2 * LANES <= count; i += 2 * LANES) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), times));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + LANES), times));

        _mm256_storeu_si256((__m256i *)(out + i), _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8));
    }
    for (; i < count; i++)
        out[i] = (int16_t)lrintf(x[i] * factor);
}

/* ------------------------------------------------------------------------------------------------ outputs */

/* What happens to sums: out = sum * unit * scale + bias, plus what is added; nothing below zero with `relu`, and then `most` is
 * raised to the largest of them. */
typedef struct {
    const float *scale, *bias, *added;
    float *out;
    size_t outs;
    float unit;
    int relu;
    __m256 most;
} finish;

INLINE __m256 output(__m256i sum, __m256 scale, __m256 bias)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, bias);
}

/* Eight outputs, of which `mask` has those that are real, of `count` positions from `first` on. */
INLINE void finished_some(finish *f, const __m256i *made, __m256 scale, __m256 bias, size_t first, int count, __m256i mask)
{
    int r;

    for (r = 0; r < count; r++) {
        const size_t where = first + (size_t)r * f->outs;
        __m256 y = output(made[2 * r], scale, bias);

        if (f->added)
            y = _mm256_add_ps(y, _mm256_maskload_ps(f->added + where, mask));
        if (f->relu) {
            y = _mm256_max_ps(y, _mm256_setzero_ps());
            f->most = _mm256_max_ps(f->most, y);
        }
        _mm256_maskstore_ps(f->out + where, mask, y);
    }
}

#define OUTPUT(r) __m256 y##r = output(made[2 * r], scale, bias);
#define PLUS_ADDED(r) y##r = _mm256_add_ps(y##r, _mm256_loadu_ps(f->added + first + r * f->outs));
#define NO_LESS(r)                                                                                            \
    y##r = _mm256_max_ps(y##r, _mm256_setzero_ps());                                                          \
    most = _mm256_max_ps(most, y##r);
#define STORE(r) _mm256_storeu_ps(f->out + first + r * f->outs, y##r);

/* Eight outputs of six positions. */
INLINE void finished_all(finish *f, const __m256i *made, __m256 scale, __m256 bias, size_t first)
{
    EACH(OUTPUT)

    if (f->added) {
        EACH(PLUS_ADDED)
    }
    if (f->relu) {
        __m256 most = f->most;

        EACH(NO_LESS)
        f->most = most;
    }
    EACH(STORE)
}

/* Six positions from `place` on, of which `count` are real; outputs from `channel` on. */
INLINE void finished(finish *f, const __m256i made[2 * GROUP], int wide, size_t place, int count, size_t channel)
{
    int half;

    for (half = 0; half < wide; half++) {
        const size_t at = channel + (size_t)half * LANES, first = place * f->outs + at;
        const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(f->scale + at), _mm256_set1_ps(f->unit));
        const __m256 bias = _mm256_loadu_ps(f->bias + at);

        if (count == GROUP && f->outs - at >= LANES)
            finished_all(f, made + half, scale, bias, first);
        else
            finished_some(f, made + half, scale, bias, first, count, lanes(f->outs - at < LANES ? (int)(f->outs - at) : LANES));
    }
}

/* All outputs of `count` positions; rows has them filled up to whole groups. firsts and lasts: the segments of each group that
 * are not zeros outside the picture, or NULL. */
APART static void outputs(const int16_t *const *rows, size_t count, const int32_t *offsets, int segments, size_t pairs,
                         const int *firsts, const int *lasts, const int16_t *kernel, finish *f, size_t place)
{
    const size_t wide_outs = (f->outs + LANES - 1) / LANES * LANES;
    size_t channel, r;

    for (channel = 0; channel < wide_outs; channel += PANEL) {
        const int16_t *panel = kernel + channel * (size_t)segments * pairs * 2;

        for (r = 0; r < count; r += GROUP) {
            const int some = count - r < GROUP ? (int)(count - r) : GROUP;
            const int first = firsts ? firsts[r / GROUP] : 0, last = lasts ? lasts[r / GROUP] : segments;
            __m256i made[2 * GROUP];

            if (wide_outs - channel >= PANEL) {
                sums(rows + r, offsets, first, last, pairs, panel, made);
                finished(f, made, 2, place + r, some, channel);
            } else {
                few_sums(rows + r, offsets, first, last, pairs, panel, made);
                finished(f, made, 1, place + r, some, channel);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------ a convolution */

/* A line of a photo's samples, less what counts as nothing: 32 steps for a level. */
FAST static void levelled(const uint8_t *x, size_t count, const int16_t *nothing, size_t ins, int16_t *out)
{
    int16_t pattern[16 * 4];
    size_t i, p;

    for (i = 0; i < 16 * ins; i++)
        pattern[i] = nothing[i % ins];
    for (i = 0, p = 0; i + 16 <= count; i += 16, p = p + 1 == ins ? 0 : p + 1) {
        const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(x + i)));

        _mm256_storeu_si256((__m256i *)(out + i),
                            _mm256_sub_epi16(_mm256_slli_epi16(wide, 5), _mm256_loadu_si256((const __m256i *)(pattern + 16 * p))));
    }
    for (; i < count; i++)
        out[i] = (int16_t)(32 * x[i] - nothing[i % ins]);
}

/* A photo's line on a field of cells, `fold` x `fold` samples each, whose sides are given with zeros around them. */
static void fold_line(const int16_t *line, size_t cells, size_t cell, size_t part, int16_t *to)
{
    size_t i;

    if (part == 12)
        for (i = 0; i < cells; i++)
            memcpy(to + i * cell, line + i * 12, 12 * sizeof *line);
    else
        for (i = 0; i < cells; i++)
            memcpy(to + i * cell, line + i * part, part * sizeof *line);
}

/* Where the numbers of an input lie, with zeros around them, and what a position sees. */
typedef struct {
    size_t height, width, depth; /* depth: numbers of a place */
    size_t step;                 /* places from one position to the next */
    int32_t offsets[16 * 16];
    int segments;
    size_t pairs;
} ground;

static ground ground_of(const vz_convolution *l)
{
    const int32_t step = l->pixels ? 1 : l->stride, each = l->dilation > 1 ? l->kernel_cols : 1;
    const int32_t last_row = (l->rows - 1) * step + (l->kernel_rows - 1) * l->dilation + 1;
    const int32_t last_col = (l->cols - 1) * step + (l->kernel_cols - 1) * l->dilation + 1;
    ground g;
    int i, j;

    g.height = (size_t)(l->pixels || last_row > l->top + l->height ? last_row : l->top + l->height);
    g.width = (size_t)(l->pixels || last_col > l->left + l->width ? last_col : l->left + l->width);
    g.depth = (size_t)l->ins * (size_t)(l->pixels ? l->stride * l->stride : 1);
    g.step = (size_t)step;
    g.segments = l->kernel_rows * each;
    g.pairs = ((size_t)(l->kernel_cols / each) * g.depth + 1) / 2;
    for (i = 0; i < l->kernel_rows; i++)
        for (j = 0; j < each; j++)
            g.offsets[i * each + j] = (int32_t)(((size_t)i * g.width + (size_t)j) * (size_t)l->dilation * g.depth);
    return g;
}

size_t vz_convolution_field(const vz_convolution *l)
{
    const ground g = ground_of(l);
    const size_t line = l->pixels ? g.width * (size_t)l->stride * (size_t)l->ins + (size_t)(l->left + l->width) * (size_t)l->ins : 0;

    return g.height * g.width * g.depth + line + SLACK;
}

/* Which segments rows y0..y1 of the output have inside the picture. */
static void inside(const vz_convolution *l, const ground *g, int32_t y0, int32_t y1, int *first, int *last)
{
    const int each = g->segments / l->kernel_rows;
    int32_t i = 0, end = l->kernel_rows;

    *first = 0;
    *last = g->segments;
    if (l->pixels)
        return;
    while (i < end && y1 * l->stride + i * l->dilation < l->top)
        i++;
    while (end > i && y0 * l->stride + (end - 1) * l->dilation >= l->top + l->height)
        end--;
    *first = i * each;
    *last = end * each;
}

/* A photo in cells; a line lies behind the field while it is read. */
static void spread_pixels(const vz_convolution *l, const ground *g)
{
    const size_t ins = (size_t)l->ins, fold = (size_t)l->stride, left = (size_t)l->left * ins, samples = (size_t)l->width * ins;
    int16_t *line = l->field + g->height * g->width * g->depth;
    int32_t y;

    memset(l->field, 0, (g->height * g->width * g->depth + left + SLACK) * sizeof *line);
    memset(line + left + samples, 0, g->width * fold * ins * sizeof *line);
    for (y = 0; y < l->height; y++) {
        const size_t row = (size_t)(y + l->top) / fold, part = (size_t)(y + l->top) % fold;

        if (row >= g->height)
            return;
        levelled(l->pixels + (size_t)y * samples, samples, l->nothing, ins, line + left);
        fold_line(line, g->width, g->depth, fold * ins, l->field + row * g->width * g->depth + part * fold * ins);
    }
}

static void spread_out(const vz_convolution *l, const ground *g, float most)
{
    const size_t line = (size_t)l->width * g->depth, whole = g->width * g->depth, before = (size_t)l->left * g->depth;
    const size_t rest = whole - before - line;
    int16_t *to = l->field;
    int32_t y;

    memset(to, 0, (size_t)l->top * whole * sizeof *to);
    to += (size_t)l->top * whole;
    for (y = 0; y < l->height; y++, to += whole) {
        memset(to, 0, before * sizeof *to);
        rounded(l->x + (size_t)y * line, line, most, l->levels, to + before);
        memset(to + before + line, 0, rest * sizeof *to);
    }
    memset(to, 0, ((g->height - (size_t)(l->top + l->height)) * whole + SLACK) * sizeof *to);
}

FAST int vz_convolve(const vz_convolution *l)
{
    const size_t count = (size_t)l->rows * (size_t)l->cols, cols = (size_t)l->cols;
    const ground g = ground_of(l);
    const float most = l->pixels ? (float)l->levels : reach(l->x, (size_t)l->height * (size_t)l->width * g.depth);
    finish f = {l->scale, l->bias, l->added, l->out, (size_t)l->outs, most / (float)l->levels, l->relu, ZERO};
    size_t start, i;

    if (!(most < MOST))
        return VZ_RANGE;
    if (l->pixels)
        spread_pixels(l, &g);
    else
        spread_out(l, &g, most);
    for (start = 0; start < count; start += CHUNK) {
        const size_t some = count - start < CHUNK ? count - start : CHUNK;
        const int16_t *rows[CHUNK];
        int firsts[CHUNK / GROUP], lasts[CHUNK / GROUP];

        for (i = 0; i < CHUNK; i++) {
            const size_t place = start + (i < some ? i : some - 1);

            rows[i] = l->field + (place / cols * g.width + place % cols) * g.step * g.depth;
        }
        for (i = 0; i < some; i += GROUP) {
            const size_t end = i + GROUP < some ? i + GROUP : some;

            inside(l, &g, (int32_t)((start + i) / cols), (int32_t)((start + end - 1) / cols), &firsts[i / GROUP], &lasts[i / GROUP]);
        }
        outputs(rows, some, g.offsets, g.segments, g.pairs, firsts, lasts, l->kernel, &f, start);
    }
    return VZ_OK;
}

/* ------------------------------------------------------------------------------------------------ a separable block */

/* All channels of a depthwise 3x3 convolution at a position beside the edge. */
FAST static void spread_edge(const vz_separable *l, const float *none, int32_t y, int32_t x, float *out)
{
    const size_t channels = (size_t)l->channels;
    const float *from[TAPS];
    size_t c;
    int k;

    for (k = 0; k < TAPS; k++) {
        const int32_t v = y + (k / 3 - 1) * l->dilation, h = x + (k % 3 - 1) * l->dilation;

        from[k] = v < 0 || h < 0 || v >= l->height || h >= l->width
                      ? none : l->x + ((size_t)v * (size_t)l->width + (size_t)h) * channels;
    }
    for (c = 0; c < channels; c += LANES) {
        __m256 sum = _mm256_loadu_ps(l->taps_bias + c);

        for (k = 0; k < TAPS; k++)
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(from[k] + c), _mm256_loadu_ps(l->taps + (size_t)k * channels + c), sum);
        _mm256_storeu_ps(out + c, sum);
    }
}

/* All channels of positions start..start + count - 1; gives the largest size of a number. */
FAST static float spread_few(const vz_separable *l, const float *none, size_t start, size_t count, float *out)
{
    const size_t channels = (size_t)l->channels, width = (size_t)l->width, d = (size_t)l->dilation;
    const size_t line = d * width * channels, column = d * channels;
    size_t inner[FEW], known = 0, i, c;
    __m256 most = _mm256_setzero_ps();

    for (i = 0; i < count; i++) {
        const size_t y = (start + i) / width, x = (start + i) % width;

        if (y >= d && x >= d && y + d < (size_t)l->height && x + d < width)
            inner[known++] = i;
        else
            spread_edge(l, none, (int32_t)y, (int32_t)x, out + i * channels);
    }
    for (c = 0; c < channels; c += LANES) {
        const float *t = l->taps + c;
        const __m256 bias = _mm256_loadu_ps(l->taps_bias + c);
        const __m256 t0 = _mm256_loadu_ps(t), t1 = _mm256_loadu_ps(t + channels), t2 = _mm256_loadu_ps(t + 2 * channels);
        const __m256 t3 = _mm256_loadu_ps(t + 3 * channels), t4 = _mm256_loadu_ps(t + 4 * channels);
        const __m256 t5 = _mm256_loadu_ps(t + 5 * channels), t6 = _mm256_loadu_ps(t + 6 * channels);
        const __m256 t7 = _mm256_loadu_ps(t + 7 * channels), t8 = _mm256_loadu_ps(t + 8 * channels);

        for (i = 0; i < known; i++) {
            const float *b = l->x + (start + inner[i]) * channels + c, *a = b - line, *e = b + line;
            __m256 sum = bias, more;

            sum = _mm256_fmadd_ps(_mm256_loadu_ps(a - column), t0, sum);
            more = _mm256_mul_ps(_mm256_loadu_ps(a), t1);
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(a + column), t2, sum);
            more = _mm256_fmadd_ps(_mm256_loadu_ps(b - column), t3, more);
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(b), t4, sum);
            more = _mm256_fmadd_ps(_mm256_loadu_ps(b + column), t5, more);
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(e - column), t6, sum);
            more = _mm256_fmadd_ps(_mm256_loadu_ps(e), t7, more);
            sum = _mm256_add_ps(_mm256_fmadd_ps(_mm256_loadu_ps(e + column), t8, sum), more);
            _mm256_storeu_ps(out + inner[i] * channels + c, sum);
            most = _mm256_max_ps(most, size_of(sum));
        }
    }
    for (i = 0; known < count && i < count * channels; i += LANES)
        most = _mm256_max_ps(most, size_of(_mm256_loadu_ps(out + i)));
    return largest(most);
}

FAST int vz_separate(const vz_separable *l)
{
    const size_t count = (size_t)l->height * (size_t)l->width, channels = (size_t)l->channels, inner = (size_t)l->inner;
    const size_t most_channels = channels > inner ? channels : inner;
    const int32_t offset = 0;
    float *real = malloc(FEW * most_channels * sizeof *real), *none = calloc(channels, sizeof *none);
    int16_t *whole = calloc(FEW * most_channels + SLACK, sizeof *whole);
    size_t start, i;
    int status = real && none && whole ? VZ_OK : VZ_NO_MEMORY;

    if (status == VZ_OK && !(reach(l->x, count * channels) < MOST))
        status = VZ_RANGE;
    for (start = 0; status == VZ_OK && start < count; start += FEW) {
        const size_t some = count - start < FEW ? count - start : FEW;
        const int16_t *rows[FEW];
        finish f = {l->widen_scale, l->widen_bias, NULL, real, inner, 0, 1, ZERO};
        float most = spread_few(l, none, start, some, real);

        if (!(most < MOST)) {
            status = VZ_RANGE;
            break;
        }
        rounded(real, some * channels, most, l->widen_levels, whole);
        for (i = 0; i < FEW; i++)
            rows[i] = whole + (i < some ? i : some - 1) * channels;
        f.unit = most / (float)l->widen_levels;
        outputs(rows, some, &offset, 1, channels / 2, NULL, NULL, l->widen, &f, 0);
        most = largest(f.most);
        if (!(most < MOST)) {
            status = VZ_RANGE;
            break;
        }
        rounded(real, some * inner, most, l->narrow_levels, whole);
        for (i = 0; i < FEW; i++)
            rows[i] = whole + (i < some ? i : some - 1) * inner;
        f = (finish){l->narrow_scale, l->narrow_bias, l->x, l->out, channels, most / (float)l->narrow_levels, 0, ZERO};
        outputs(rows, some, &offset, 1, inner / 2, NULL, NULL, l->narrow, &f, start);
    }
    free(real);
    free(none);
    free(whole);
    return status;
}

#else

size_t vz_convolution_field(const vz_convolution *l)
{
    (void)l;
    return 0;
}

int vz_convolve(const vz_convolution *l)
{
    (void)l;
    return VZ_BAD_ARGUMENT;
}

int vz_separate(const vz_separable *l)
{
    (void)l;
    return VZ_BAD_ARGUMENT;
}

#endif
