/* What lies between a recurrent codec's layers and its pictures: residuals with their gain, and the pictures they improve.
 * The gain is that of Toderici et al. 2017, section 3.2, in the form that nets/recurrent.py says. */
#include "native.h"

#include <math.h>

enum { SQUARE = 8 };

/* Of one square of 8x8: (strength) / (1/2 + spread of the reconstruction). */
static float gain(const vz_pictures *v, const float *image, size_t plane)
{
    float spread = 0;
    int c, y, x;

    if (v->strength <= 0)
        return 1;
    for (c = 0; c < 3; c++, image += plane) {
        float sum = 0, squares = 0;

        for (y = 0; y < SQUARE; y++)
            for (x = 0; x < SQUARE; x++) {
                const float value = image[(size_t)y * (size_t)v->width + (size_t)x];
                sum += value;
                squares += value * value;
            }
        sum /= SQUARE * SQUARE;
        squares = squares / (SQUARE * SQUARE) - sum * sum;
        spread += squares > 0 ? squares : 0;
    }
    return v->strength / (0.5f + sqrtf(spread / 3));
}

void vz_picture_patches(const vz_pictures *v, const float *source, const float *image, int both, float *patches)
{
    const size_t width = (size_t)v->width, height = (size_t)v->height, plane = width * height, side = (size_t)v->side;
    const size_t cells = side * side, planes = both ? 6 : 3, across = width / side;
    size_t n, top, left, c, y, x;

    for (n = 0; n < (size_t)v->images; n++)
        for (top = 0; top < height; top += SQUARE)
            for (left = 0; left < width; left += SQUARE) {
                const size_t corner = n * 3 * plane + top * width + left;
                const float times = image ? gain(v, image + corner, plane) : 1;

                for (c = 0; c < 3; c++)
                    for (y = 0; y < SQUARE; y++)
                        for (x = 0; x < SQUARE; x++) {
                            const size_t at = corner + c * plane + y * width + x;
                            float *patch = patches +
                                           ((n * (height / side) + (top + y) / side) * across + (left + x) / side) * planes * cells +
                                           c * cells + y % side * side + x % side;
                            const float missing = (source[at] - (image ? image[at] : 0)) * times;

                            if (both) {
                                patch[0] = source[at];
                                patch[3 * cells] = missing;
                            } else {
                                patch[0] = missing;
                            }
                        }
            }
}

void vz_picture_improve(const vz_pictures *v, const float *y, const float *image, float *out)
{
    const size_t width = (size_t)v->width, height = (size_t)v->height, plane = width * height, side = (size_t)v->side;
    const size_t cells = side * side, across = width / side;
    size_t n, top, left, c, i, j;

    for (n = 0; n < (size_t)v->images; n++)
        for (top = 0; top < height; top += SQUARE)
            for (left = 0; left < width; left += SQUARE) {
                const size_t corner = n * 3 * plane + top * width + left;
                const float times = image ? 1 / gain(v, image + corner, plane) : 1;

                for (c = 0; c < 3; c++)
                    for (i = 0; i < SQUARE; i++)
                        for (j = 0; j < SQUARE; j++) {
                            const size_t at = corner + c * plane + i * width + j;
                            const float *made = y +
                                                ((n * (height / side) + (top + i) / side) * across + (left + j) / side) * 3 * cells +
                                                c * cells + i % side * side + j % side;

                            out[at] = (image ? image[at] : 0) + made[0] * times;
                        }
            }
}
