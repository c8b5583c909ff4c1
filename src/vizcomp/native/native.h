/* Block loops and entropy coding of JPEG (ITU-T T.81), and coding of bit planes, free of Python so that they can be fuzzed alone.
 *
 * Coefficients are int16 in blocks of 64 in natural (row by row) order; a component's blocks lie row by row,
 * `block_cols` to a row, padded to whole MCUs. All functions return a status, never abort, and check every index
 * that comes from a bit stream. */
#ifndef VIZCOMP_NATIVE_H
#define VIZCOMP_NATIVE_H

#include <stddef.h>
#include <stdint.h>

enum {
    VZ_OK = 0,
    VZ_SHORT = 1,        /* the entropy-coded data end before the scan does */
    VZ_BAD_CODE = 2,     /* a bit pattern that is no code of the Huffman table */
    VZ_BAD_VALUE = 3,    /* a coefficient, run or category outside what the scan allows */
    VZ_BAD_RESTART = 4,  /* another marker stands where a restart marker is due */
    VZ_BAD_TABLE = 5,    /* a Huffman table that is no prefix code */
    VZ_NO_MEMORY = 6,
    VZ_BAD_ARGUMENT = 7, /* the caller's sizes do not fit together */
    VZ_LEFT_OVER = 8,    /* no error: all is decoded, but for a byte or two before a restart marker */
    VZ_RANGE = 8         /* a coefficient too large to be written in an 8-bit JPEG */
};

#define VZ_MAX_COMPONENTS 4
#define VZ_LOOK_BITS 10

/* A Huffman table ready for decoding. */
typedef struct {
    uint16_t look[1 << VZ_LOOK_BITS];  /* length << 8 | symbol for codes of at most VZ_LOOK_BITS bits, else 0 */
    int32_t fast[1 << VZ_LOOK_BITS];   /* code and value together: value * 65536 + (run << 8 | bits), else 0 */
    int32_t limit[17];                 /* first 16-bit pattern above the codes of each length */
    int32_t offset[17];                /* added to a code of that length: its index in `values` */
    uint8_t values[256];
} vz_huffman;

typedef struct {
    int16_t *coefficients;
    int32_t block_rows, block_cols;  /* as stored */
    int32_t real_rows, real_cols;    /* blocks that hold samples of the picture */
    int32_t h, v;                    /* sampling factors */
    int32_t id;                      /* identifier written in scan headers */
    const vz_huffman *dc, *ac;       /* decoding only */
    int32_t set;                     /* encoding: statistics shared with the components of the same set (0 or 1) */
} vz_component;

typedef struct {
    int progressive;
    int ss, se, ah, al;
    int32_t restart;             /* MCUs between restart markers, 0 = none */
    int32_t mcu_rows, mcu_cols;  /* of the frame, for interleaved scans */
} vz_scan;

/* counts: number of codes of 1..16 bits; values: `total` symbols. */
int vz_huffman_build(vz_huffman *table, const uint8_t counts[16], const uint8_t *values, size_t total);

/* Whether a component's sizes and sampling factors are possible. */
int vz_valid_component(const vz_component *c);

/* Decodes one scan from data[*position]; *position moves to the next marker (or to `size`). */
int vz_decode_scan(const uint8_t *data, size_t size, size_t *position, const vz_component *components, int count,
                   const vz_scan *scan);

typedef struct {
    uint8_t *data;
    size_t size, capacity;
    uint64_t bits;  /* pending bits, right aligned */
    int pending;
    int failed;
} vz_bytes;

/* Writes DHT, SOS and data of all scans of a picture. With `optimise` off (sequential only) Annex K's tables are used. */
int vz_encode_scans(const vz_component *components, int count, int progressive, int optimise, int32_t mcu_rows,
                    int32_t mcu_cols, vz_bytes *out);

/* Lengths of the typical luminance AC code (table K.5). */
void vz_standard_lengths(uint8_t lengths[256]);

void vz_bytes_free(vz_bytes *out);

extern const uint8_t vz_zigzag[64]; /* zigzag position to natural index */

/* Forward DCT of an RGB (channels 3) or grey (1) picture, 8 bits. hx, vy: chroma subsampling (1 or 2).
 * out[0]: luma; out[1], out[2]: chroma (unused for grey); rows x cols x 64 floats each as `mcu_rows`, `mcu_cols` say. */
int vz_forward(const uint8_t *pixels, size_t height, size_t width, int channels, int hx, int vy, float *const out[3]);

/* Blocks times `unit`, each `down` x `across` (1 or 2) of them to the block of their pixels' means; the grid is cut or
 * padded with its last blocks, mirrored, to out_rows x out_cols results. */
int vz_halve(const int16_t *blocks, size_t rows, size_t cols, const float unit[64], size_t down, size_t across,
             size_t out_rows, size_t out_cols, float *out);

/* See jpeg/quantise.py. `rate` may be NULL; `exact` marks frequencies where a value is kept whole or dropped;
 * `worth` is what a squared step of each counts. */
int vz_quantise(const float *values, size_t blocks, const float table[64], const float *dead_zone, const float *rate,
                const float worth[64], const uint8_t lengths[256], const uint8_t exact[64], int16_t *out);

/* DC values of a component: ratio and rate are rows x cols, in steps and in squared steps for a bit. The sum of squared errors
 * and rate * bits becomes least along the scan, whose MCUs hold down x across of the component's blocks: a shortest path over
 * the nearest value and two on either side. Where the rate is 0 it is the nearest. */
int vz_settle_dc(const float *ratio, const float *rate, size_t rows, size_t cols, size_t down, size_t across, int16_t *dc);

/* ---- bits.c: a slot is one channel of one iteration, numbered in the order of coding */

enum {
    VZ_MAX_SLOTS = 16384,
    VZ_MAX_SETS = 16,
    VZ_MAX_REFERENCES = 8, /* of one set */
    VZ_MAX_REACH = 2,      /* rows and columns between a bit and a reference */
    VZ_MAX_RATE = 24,
    VZ_MAX_SIDE = 1 << 24
};

typedef struct vz_context vz_context;

/* Images of equal size: uint8 (images, last, height, width), of which slots first..last - 1 are coded and those before known. */
typedef struct {
    int32_t images, first, last, height, width;
} vz_planes;

/* lengths: [slot][set]; references: slot (-1: the plane of ones), dy, dx; tables and weights as ContextModel stores them. */
int vz_context_new(vz_context **out, int32_t slots, int32_t sets, const uint8_t *lengths, const int32_t *references,
                   size_t reference_items, const uint16_t *tables, size_t table_items, const int32_t *weights,
                   const uint8_t *rates);
void vz_context_free(vz_context *m);
int32_t vz_context_slots(const vz_context *m);

/* out: room for the raw bytes of all images; sizes: of each image's bytes, which lie one after the other. */
int vz_context_encode(const vz_context *m, const vz_planes *v, const uint8_t *bits, uint8_t *out, int32_t *sizes);

/* The caller has made sure that the sizes add up to the data. VZ_BAD_VALUE: image `*bad` has bytes that encode never makes. */
int vz_context_decode(const vz_context *m, const vz_planes *v, uint8_t *bits, const uint8_t *data, const int32_t *sizes,
                      int32_t *bad);

/* costs: ideal code length of each image in 1/65536 bits. */
int vz_context_cost(const vz_context *m, const vz_planes *v, const uint8_t *bits, uint64_t *costs);

/* ---- lstm.c: layers of networks, float32, channels last */

/* A 3x3 convolution over zeros outside, and the gates of a cell behind it. All channels are multiples of 8.
 * x: [images][rows * down / up][cols * down / up][up * up][ins]: `up` is a depth to space that was not carried out.
 * kernel: with down 1 [block][36][panels][ins][16], the kernels in Winograd's domain; with down 2 [block][panels][9 * ins +
 * channels][16], those of the hidden state behind the nine of the input. With gates a block is eight channels in two panels
 * (input and forget gate; new value and output gate), else 16 outputs in one. hidden (down 1): [block][panels][channels][16].
 * bias: as the outputs in blocks. h and c: NULL in the first step. new_h: the outputs, where there are no gates. */
typedef struct {
    int32_t images, rows, cols; /* of the outputs */
    int32_t ins, channels, up, down, gates;
    const float *x, *kernel, *hidden, *bias, *h, *c;
    float *new_h, *new_c;
} vz_layer;

/* Whether this processor has what the following need; without, they must not be called. */
int vz_layers_possible(void);

/* In how many parts a layer can be cut, so that threads share it. */
int64_t vz_layer_parts(const vz_layer *l);
int vz_layer_run(const vz_layer *l, int64_t first, int64_t last);

/* A 1x1 convolution: x [places][ins] to out [places][outs], outs a multiple of 16; kernel [outs / 16][ins][16]. */
int vz_points(const float *x, size_t places, size_t ins, size_t outs, const float *kernel, const float *bias, int tanh, float *out);

/* ---- convolve.c: layers of networks that look at photos, by integers; they need what vz_layers_possible says. Channels last. */

/* A convolution with zeros around the picture. x is rounded to `levels` steps from 0 to its largest number. pixels, if given,
 * stand in the place of x: a sample of channel c is 32 * sample - nothing[c] steps, of which levels is the largest. The kernel
 * then is one of cells, stride x stride samples with stride * stride * ins numbers each, and goes from cell to cell.
 * kernel: [panel of 16 outputs, the last perhaps of 8][segment][pair of numbers][output][2]; a segment is a row of the kernel, all
 * its columns and inputs, filled up with a zero to whole pairs; or, where dilation is not 1, the inputs of one tap.
 * The sum over |kernel| of an output, times levels, is below 2^31. scale and bias: of the outputs, filled up to whole eights. */
typedef struct {
    int32_t height, width, ins; /* of the input */
    int32_t rows, cols, outs;   /* of the output */
    int32_t kernel_rows, kernel_cols, stride, dilation, top, left;
    int32_t relu, levels;
    const float *x;
    const uint8_t *pixels;
    const int16_t *nothing, *kernel;
    const float *scale, *bias, *added; /* added: as out, or NULL */
    int16_t *field;                    /* room to work in */
    float *out;
} vz_convolution;

/* Numbers that the field must have room for. */
size_t vz_convolution_field(const vz_convolution *l);

/* VZ_RANGE: a number of x is not finite, or would not be. */
int vz_convolve(const vz_convolution *l);

/* x + narrow(relu(widen(spread(x)))): a depthwise 3x3 convolution and two 1x1 convolutions. channels and inner are multiples
 * of 8; taps: [9][channels]; widen and narrow, with their levels, scales and biases, as kernels of vz_convolution. */
typedef struct {
    int32_t height, width, channels, inner, dilation, widen_levels, narrow_levels;
    const float *x, *taps, *taps_bias;
    const int16_t *widen;
    const float *widen_scale, *widen_bias;
    const int16_t *narrow;
    const float *narrow_scale, *narrow_bias;
    float *out;
} vz_separable;

int vz_separate(const vz_separable *l);

/* pictures.c: by how much a residual is enlarged after the first iteration, and the two places where it is needed.
 * Pictures are [images][3][height][width]. */
typedef struct {
    int32_t images, height, width; /* multiples of 8 */
    int32_t side;                  /* of the squares of the network's coarser grid, a divisor of 8 */
    float strength;                /* 1 + iteration / 2, or 0: no gain */
} vz_pictures;

/* The source, if `both`, and what is missing in the image, as [images][height / side][width / side][planes][side * side]. */
void vz_picture_patches(const vz_pictures *v, const float *source, const float *image, int both, float *patches);

/* image + y / gain, with y [images][height / side][width / side][3][side * side]; image NULL: y alone. */
void vz_picture_improve(const vz_pictures *v, const float *y, const float *image, float *out);

#endif
