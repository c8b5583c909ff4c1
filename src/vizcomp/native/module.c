/* vizcomp._native: checks types and sizes, holds the buffers, lets the GIL go, and calls the loops. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "native.h"

#include <string.h>

typedef struct {
    Py_buffer view;
    int held;
} buffer;

static void release(buffer *b)
{
    if (b->held)
        PyBuffer_Release(&b->view);
    b->held = 0;
}

/* `object` as a contiguous buffer of items of `format` ('B', 'h', 'H', 'i', 'f'); items < 0: any number. */
static int hold(buffer *b, PyObject *object, char format, Py_ssize_t items, int writable, const char *name)
{
    const char *layout;

    if (PyObject_GetBuffer(object, &b->view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return -1;
    b->held = 1;
    layout = b->view.format ? b->view.format : "B";
    if (layout[0] != format || layout[1] != '\0') {
        PyErr_Format(PyExc_TypeError, "%s: buffer of format '%c' wanted, not '%s'", name, format, layout);
        return -1;
    }
    if (items >= 0 && b->view.len / b->view.itemsize != items) {
        PyErr_Format(PyExc_ValueError, "%s: %zd items wanted, not %zd", name, items, b->view.len / b->view.itemsize);
        return -1;
    }
    return 0;
}

static int whole_number(PyObject *tuple, Py_ssize_t index, int32_t *result)
{
    long value = PyLong_AsLong(PyTuple_GetItem(tuple, index));

    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < 0 || value > 0x7FFFFFF) {
        PyErr_SetString(PyExc_ValueError, "component: a size is out of range");
        return -1;
    }
    *result = (int32_t)value;
    return 0;
}

/* (coefficients, block_rows, block_cols, real_rows, real_cols, h, v, id or 0, set or 0, ...) */
static int component(vz_component *c, buffer *b, PyObject *tuple, Py_ssize_t size, int writable)
{
    int32_t *fields[8];
    int i;

    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != size) {
        PyErr_SetString(PyExc_TypeError, "a component is a tuple of the documented length");
        return -1;
    }
    fields[0] = &c->block_rows;
    fields[1] = &c->block_cols;
    fields[2] = &c->real_rows;
    fields[3] = &c->real_cols;
    fields[4] = &c->h;
    fields[5] = &c->v;
    fields[6] = &c->id;
    fields[7] = &c->set;
    for (i = 0; i < 8; i++)
        if (whole_number(tuple, i + 1, fields[i]) < 0)
            return -1;
    if (c->block_rows > 65536 || c->block_cols > 65536) {
        PyErr_SetString(PyExc_ValueError, "component: a size is out of range");
        return -1;
    }
    if (hold(b, PyTuple_GetItem(tuple, 0), 'h', (Py_ssize_t)c->block_rows * c->block_cols * 64, writable, "coefficients") < 0)
        return -1;
    c->coefficients = b->view.buf;
    return 0;
}

/* A table made by huffman_table, or None. */
static int prepared(const vz_huffman **table, PyObject *object)
{
    *table = NULL;
    if (object == Py_None)
        return 0;
    *table = PyCapsule_GetPointer(object, "vizcomp._native.huffman");
    return *table ? 0 : -1;
}

static void drop_table(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, "vizcomp._native.huffman"));
}

static PyObject *huffman_table(PyObject *self, PyObject *args)
{
    const char *counts, *values;
    Py_ssize_t count_size, value_size;
    vz_huffman *table;
    PyObject *capsule;

    (void)self;
    if (!PyArg_ParseTuple(args, "y#y#", &counts, &count_size, &values, &value_size))
        return NULL;
    if (count_size != 16) {
        PyErr_SetString(PyExc_ValueError, "counts: 16 bytes wanted");
        return NULL;
    }
    table = PyMem_Malloc(sizeof *table);
    if (!table)
        return PyErr_NoMemory();
    if (vz_huffman_build(table, (const uint8_t *)counts, (const uint8_t *)values, (size_t)value_size)) {
        PyMem_Free(table);
        Py_RETURN_NONE;
    }
    capsule = PyCapsule_New(table, "vizcomp._native.huffman", drop_table);
    if (!capsule)
        PyMem_Free(table);
    return capsule;
}

static PyObject *decode_scan(PyObject *self, PyObject *args)
{
    PyObject *source, *list, *result = NULL;
    Py_ssize_t offset, count, i;
    vz_component components[VZ_MAX_COMPONENTS];
    buffer data, buffers[VZ_MAX_COMPONENTS];
    vz_scan scan;
    size_t position;
    int status;

    (void)self;
    memset(components, 0, sizeof components);
    memset(buffers, 0, sizeof buffers);
    memset(&data, 0, sizeof data);
    if (!PyArg_ParseTuple(args, "OnO!iiiiiiii", &source, &offset, &PyTuple_Type, &list, &scan.progressive, &scan.ss, &scan.se,
                          &scan.ah, &scan.al, &scan.restart, &scan.mcu_rows, &scan.mcu_cols))
        return NULL;
    count = PyTuple_Size(list);
    if (count < 1 || count > VZ_MAX_COMPONENTS) {
        PyErr_SetString(PyExc_ValueError, "1 to 4 components wanted");
        return NULL;
    }
    if (hold(&data, source, 'B', -1, 0, "data") < 0)
        goto done;
    if (offset < 0 || offset > data.view.len) {
        PyErr_SetString(PyExc_ValueError, "offset beyond the data");
        goto done;
    }
    for (i = 0; i < count; i++) {
        PyObject *tuple = PyTuple_GetItem(list, i);
        if (component(&components[i], &buffers[i], tuple, 11, 1) < 0 ||
            prepared(&components[i].dc, PyTuple_GetItem(tuple, 9)) < 0 ||
            prepared(&components[i].ac, PyTuple_GetItem(tuple, 10)) < 0)
            goto done;
    }
    position = (size_t)offset;
    Py_BEGIN_ALLOW_THREADS
    status = vz_decode_scan(data.view.buf, (size_t)data.view.len, &position, components, (int)count, &scan);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("in", status, (Py_ssize_t)position);
done:
    for (i = 0; i < VZ_MAX_COMPONENTS; i++)
        release(&buffers[i]);
    release(&data);
    return result;
}

static int all_components(PyObject *list, vz_component *components, buffer *buffers)
{
    Py_ssize_t count = PyTuple_Size(list), i;

    memset(components, 0, VZ_MAX_COMPONENTS * sizeof *components);
    memset(buffers, 0, VZ_MAX_COMPONENTS * sizeof *buffers);
    if (count < 1 || count > VZ_MAX_COMPONENTS) {
        PyErr_SetString(PyExc_ValueError, "1 to 4 components wanted");
        return -1;
    }
    for (i = 0; i < count; i++)
        if (component(&components[i], &buffers[i], PyTuple_GetItem(list, i), 9, 0) < 0)
            return -1;
    return (int)count;
}

static PyObject *encode_scans(PyObject *self, PyObject *args)
{
    PyObject *list, *result = NULL;
    vz_component components[VZ_MAX_COMPONENTS];
    buffer buffers[VZ_MAX_COMPONENTS];
    vz_bytes out;
    int progressive, optimise, mcu_rows, mcu_cols, count, status, i;

    (void)self;
    memset(&out, 0, sizeof out);
    if (!PyArg_ParseTuple(args, "O!iiii", &PyTuple_Type, &list, &progressive, &optimise, &mcu_rows, &mcu_cols))
        return NULL;
    count = all_components(list, components, buffers);
    if (count > 0) {
        Py_BEGIN_ALLOW_THREADS
        status = vz_encode_scans(components, count, progressive, optimise, mcu_rows, mcu_cols, &out);
        Py_END_ALLOW_THREADS
        if (status == VZ_NO_MEMORY)
            PyErr_NoMemory();
        else
            result = status ? Py_BuildValue("iO", status, Py_None)
                            : Py_BuildValue("iy#", status, (const char *)out.data, (Py_ssize_t)out.size);
    }
    vz_bytes_free(&out);
    for (i = 0; i < VZ_MAX_COMPONENTS; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *standard_lengths(PyObject *self, PyObject *ignored)
{
    uint8_t lengths[256];

    (void)self;
    (void)ignored;
    vz_standard_lengths(lengths);
    return PyBytes_FromStringAndSize((const char *)lengths, (Py_ssize_t)sizeof lengths);
}

static PyObject *status_number(int status)
{
    return status == VZ_NO_MEMORY ? PyErr_NoMemory() : PyLong_FromLong(status);
}

static PyObject *forward(PyObject *self, PyObject *args)
{
    PyObject *source, *planes, *result = NULL;
    buffer pixels, buffers[3];
    float *out[3] = {NULL, NULL, NULL};
    Py_ssize_t height, width, i, count;
    int channels, hx, vy, status;

    (void)self;
    memset(&pixels, 0, sizeof pixels);
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "OnniiiO!", &source, &height, &width, &channels, &hx, &vy, &PyTuple_Type, &planes))
        return NULL;
    count = PyTuple_Size(planes);
    if (height < 1 || width < 1 || height > 65535 || width > 65535 || (channels != 1 && channels != 3) || hx < 1 || hx > 2 ||
        vy < 1 || vy > 2 || count != channels) {
        PyErr_SetString(PyExc_ValueError, "forward: sizes out of range");
        return NULL;
    }
    if (hold(&pixels, source, 'B', height * width * channels, 0, "pixels") < 0)
        goto done;
    if (channels == 1)
        hx = vy = 1;
    for (i = 0; i < count; i++) {
        Py_ssize_t cols = (width + 8 * hx - 1) / (8 * hx), rows = (height + 8 * vy - 1) / (8 * vy);
        Py_ssize_t blocks = cols * rows * (i == 0 ? hx * vy : 1);
        if (hold(&buffers[i], PyTuple_GetItem(planes, i), 'f', blocks * 64, 1, "plane") < 0)
            goto done;
        out[i] = buffers[i].view.buf;
    }
    Py_BEGIN_ALLOW_THREADS
    status = vz_forward(pixels.view.buf, (size_t)height, (size_t)width, channels, hx, vy, out);
    Py_END_ALLOW_THREADS
    result = status_number(status);
done:
    for (i = 0; i < 3; i++)
        release(&buffers[i]);
    release(&pixels);
    return result;
}

static PyObject *quantise(PyObject *self, PyObject *args)
{
    enum { VALUES, TABLE, DEAD_ZONE, RATE, WORTH, LENGTHS, EXACT, OUT, ALL };
    static const char *const names[ALL] = {"values", "table", "dead_zone", "rate", "worth", "lengths", "exact", "out"};
    static const char formats[ALL + 1] = "fffffBBh";
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t blocks, items[ALL];
    int i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "nOOOOOOOO", &blocks, &objects[0], &objects[1], &objects[2], &objects[3], &objects[4],
                          &objects[5], &objects[6], &objects[7]))
        return NULL;
    if (blocks < 0 || blocks > PY_SSIZE_T_MAX / 1024) {
        PyErr_SetString(PyExc_ValueError, "quantise: sizes out of range");
        return NULL;
    }
    items[VALUES] = items[OUT] = blocks * 64;
    items[DEAD_ZONE] = items[RATE] = blocks;
    items[TABLE] = items[WORTH] = items[EXACT] = 64;
    items[LENGTHS] = 256;
    for (i = 0; i < ALL; i++) {
        if (i == RATE && objects[i] == Py_None)
            continue;
        if (hold(&buffers[i], objects[i], formats[i], items[i], i == OUT, names[i]) < 0)
            goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = vz_quantise(buffers[VALUES].view.buf, (size_t)blocks, buffers[TABLE].view.buf, buffers[DEAD_ZONE].view.buf,
                         buffers[RATE].held ? buffers[RATE].view.buf : NULL, buffers[WORTH].view.buf,
                         buffers[LENGTHS].view.buf, buffers[EXACT].view.buf, buffers[OUT].view.buf);
    Py_END_ALLOW_THREADS
    result = PyLong_FromLong(status);
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *halve(PyObject *self, PyObject *args)
{
    enum { BLOCKS, UNIT, OUT, ALL };
    static const char *const names[ALL] = {"blocks", "unit", "out"};
    static const char formats[ALL + 1] = "hff";
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t rows, cols, down, across, out_rows, out_cols, items[ALL];
    int i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "nnnnnnOOO", &rows, &cols, &down, &across, &out_rows, &out_cols, &objects[0], &objects[1],
                          &objects[2]))
        return NULL;
    if (rows < 0 || cols < 0 || down < 1 || across < 1 || out_rows < 0 || out_cols < 0 || rows > 65536 || cols > 65536 ||
        out_rows > 65536 || out_cols > 65536) {
        PyErr_SetString(PyExc_ValueError, "halve: sizes out of range");
        return NULL;
    }
    items[BLOCKS] = rows * cols * 64;
    items[UNIT] = 64;
    items[OUT] = out_rows * out_cols * 64;
    for (i = 0; i < ALL; i++)
        if (hold(&buffers[i], objects[i], formats[i], items[i], i == OUT, names[i]) < 0)
            goto done;
    Py_BEGIN_ALLOW_THREADS
    status = vz_halve(buffers[BLOCKS].view.buf, (size_t)rows, (size_t)cols, buffers[UNIT].view.buf, (size_t)down,
                      (size_t)across, (size_t)out_rows, (size_t)out_cols, buffers[OUT].view.buf);
    Py_END_ALLOW_THREADS
    result = status_number(status);
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *settle_dc(PyObject *self, PyObject *args)
{
    enum { RATIO, RATE, OUT, ALL };
    static const char *const names[ALL] = {"ratio", "rate", "out"};
    static const char formats[ALL + 1] = "ffh";
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t rows, cols, down, across;
    int i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "nnnnOOO", &rows, &cols, &down, &across, &objects[0], &objects[1], &objects[2]))
        return NULL;
    if (rows < 0 || cols < 0 || down < 1 || across < 1 || (cols && rows > PY_SSIZE_T_MAX / 1024 / cols)) {
        PyErr_SetString(PyExc_ValueError, "settle_dc: sizes out of range");
        return NULL;
    }
    for (i = 0; i < ALL; i++)
        if (hold(&buffers[i], objects[i], formats[i], rows * cols, i == OUT, names[i]) < 0)
            goto done;
    Py_BEGIN_ALLOW_THREADS
    status = vz_settle_dc(buffers[RATIO].view.buf, buffers[RATE].view.buf, (size_t)rows, (size_t)cols, (size_t)down,
                          (size_t)across, buffers[OUT].view.buf);
    Py_END_ALLOW_THREADS
    result = status_number(status);
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

static void drop_context(PyObject *capsule)
{
    vz_context_free(PyCapsule_GetPointer(capsule, "vizcomp._native.context"));
}

static PyObject *context_model(PyObject *self, PyObject *args)
{
    enum { LENGTHS, REFERENCES, TABLES, WEIGHTS, RATES, ALL };
    static const char *const names[ALL] = {"lengths", "references", "tables", "weights", "rates"};
    static const char formats[ALL + 1] = "BiHiB";
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t items[ALL];
    vz_context *model = NULL;
    int slots, sets, i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "iiOOOOO", &slots, &sets, &objects[0], &objects[1], &objects[2], &objects[3], &objects[4]))
        return NULL;
    if (slots < 1 || slots > VZ_MAX_SLOTS || sets < 1 || sets > VZ_MAX_SETS) {
        PyErr_SetString(PyExc_ValueError, "context_model: sizes out of range");
        return NULL;
    }
    items[LENGTHS] = (Py_ssize_t)slots * sets;
    items[REFERENCES] = items[TABLES] = -1;
    items[WEIGHTS] = (Py_ssize_t)slots * (sets + 1);
    items[RATES] = sets + 1;
    for (i = 0; i < ALL; i++)
        if (hold(&buffers[i], objects[i], formats[i], items[i], 0, names[i]) < 0)
            goto done;
    status = vz_context_new(&model, slots, sets, buffers[LENGTHS].view.buf, buffers[REFERENCES].view.buf,
                            (size_t)(buffers[REFERENCES].view.len / 12), buffers[TABLES].view.buf,
                            (size_t)(buffers[TABLES].view.len / 2), buffers[WEIGHTS].view.buf, buffers[RATES].view.buf);
    if (status == VZ_NO_MEMORY) {
        PyErr_NoMemory();
    } else if (status || buffers[REFERENCES].view.len % 12) {
        PyErr_SetString(PyExc_ValueError, "context_model: a field is out of range");
        vz_context_free(model);
    } else {
        result = PyCapsule_New(model, "vizcomp._native.context", drop_context);
        if (!result)
            vz_context_free(model);
    }
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

/* The three calls that code planes: (model, images, first, last, height, width, bits, data, sizes or costs). */
static PyObject *code(PyObject *args, int kind)
{
    enum { ENCODE, DECODE, COST };
    PyObject *capsule, *objects[3], *result = NULL;
    buffer bits, data, numbers;
    vz_context *model;
    vz_planes v;
    Py_ssize_t raw, total = 0, i;
    int32_t bad = 0;
    int status;

    memset(&bits, 0, sizeof bits);
    memset(&data, 0, sizeof data);
    memset(&numbers, 0, sizeof numbers);
    if (!PyArg_ParseTuple(args, "OiiiiiOOO", &capsule, &v.images, &v.first, &v.last, &v.height, &v.width, &objects[0],
                          &objects[1], &objects[2]))
        return NULL;
    model = PyCapsule_GetPointer(capsule, "vizcomp._native.context");
    if (!model)
        return NULL;
    if (v.images < 1 || v.first < 0 || v.last <= v.first || v.last > vz_context_slots(model) || v.height < 1 || v.width < 1 ||
        v.height > VZ_MAX_SIDE || v.width > VZ_MAX_SIDE ||
        (Py_ssize_t)v.height * v.width > PY_SSIZE_T_MAX / 16 / VZ_MAX_SLOTS ||
        v.images > PY_SSIZE_T_MAX / 16 / ((Py_ssize_t)v.height * v.width * v.last)) {
        PyErr_SetString(PyExc_ValueError, "sizes out of range");
        return NULL;
    }
    raw = ((Py_ssize_t)(v.last - v.first) * v.height * v.width + 7) / 8;
    if (raw > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "sizes out of range");
        return NULL;
    }
    if (hold(&bits, objects[0], 'B', (Py_ssize_t)v.images * v.last * v.height * v.width, kind == DECODE, "bits") < 0)
        goto done;
    if (kind != COST && hold(&data, objects[1], 'B', kind == ENCODE ? v.images * raw : -1, kind == ENCODE, "data") < 0)
        goto done;
    if (hold(&numbers, objects[2], kind == COST ? 'B' : 'i', kind == COST ? 8 * (Py_ssize_t)v.images : v.images, kind != DECODE,
             "sizes") < 0)
        goto done;
    for (i = 0; kind == DECODE && i < v.images; i++) {
        int32_t size = ((const int32_t *)numbers.view.buf)[i];
        if (size < 0 || size > data.view.len - total) {
            PyErr_SetString(PyExc_ValueError, "sizes do not add up to the data");
            goto done;
        }
        total += size;
    }
    Py_BEGIN_ALLOW_THREADS
    if (kind == ENCODE)
        status = vz_context_encode(model, &v, bits.view.buf, data.view.buf, numbers.view.buf);
    else if (kind == DECODE)
        status = vz_context_decode(model, &v, bits.view.buf, data.view.buf, numbers.view.buf, &bad);
    else
        status = vz_context_cost(model, &v, bits.view.buf, numbers.view.buf);
    Py_END_ALLOW_THREADS
    if (status == VZ_NO_MEMORY)
        PyErr_NoMemory();
    else
        result = Py_BuildValue("ii", status, (int)bad);
done:
    release(&bits);
    release(&data);
    release(&numbers);
    return result;
}

static PyObject *context_encode(PyObject *self, PyObject *args)
{
    (void)self;
    return code(args, 0);
}

static PyObject *context_decode(PyObject *self, PyObject *args)
{
    (void)self;
    return code(args, 1);
}

static PyObject *context_cost(PyObject *self, PyObject *args)
{
    (void)self;
    return code(args, 2);
}

/* ------------------------------------------------------------------------------------------------ networks */

static PyObject *layers_possible(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(vz_layers_possible());
}

/* Sizes and factors of a layer, so small that no product of them overflows. */
static int layer_sizes(const vz_layer *l)
{
    const int32_t limit = 1 << 16;
    const Py_ssize_t most = PY_SSIZE_T_MAX / 4096 / 4096;

    if (!vz_layers_possible())
        PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX2 and FMA");
    else if (l->images < 1 || l->rows < 1 || l->cols < 1 || l->rows > limit || l->cols > limit || l->ins < 8 || l->ins > 4096 ||
             l->ins % 8 || l->channels < 8 || l->channels > 4096 || l->channels % (l->gates ? 8 : 16) || l->up < 1 || l->up > 4 ||
             l->down < 1 || l->down > 2 || l->rows * l->down % l->up || l->cols * l->down % l->up || (l->down > 1 && !l->gates) ||
             (Py_ssize_t)l->images > most / l->rows / l->cols / 4)
        PyErr_SetString(PyExc_ValueError, "layer: sizes out of range");
    else
        return 0;
    return -1;
}

static int layer_from(vz_layer *l, PyObject *args, PyObject *objects[8], long long *first, long long *last)
{
    if (!PyArg_ParseTuple(args, "(iiiiiiii)LLOOOOOOOO", &l->images, &l->rows, &l->cols, &l->ins, &l->channels, &l->up, &l->down,
                          &l->gates, first, last, &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &objects[5],
                          &objects[6], &objects[7]))
        return -1;
    return layer_sizes(l);
}

/* layer_run((images, rows, cols, ins, channels, up, down, gates), first, last, x, kernel, hidden, bias, h, c, new_h, new_c) */
static PyObject *layer_run(PyObject *self, PyObject *args)
{
    static const char *const names[8] = {"x", "kernel", "hidden", "bias", "h", "c", "new_h", "new_c"};
    PyObject *objects[8], *result = NULL;
    buffer buffers[8];
    Py_ssize_t items[8], states;
    long long first, last;
    vz_layer l;
    int i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    memset(&l, 0, sizeof l);
    if (layer_from(&l, args, objects, &first, &last) < 0)
        return NULL;
    states = (Py_ssize_t)l.images * l.rows * l.cols * l.channels;
    items[0] = (Py_ssize_t)l.images * l.rows * l.cols * l.down * l.down * l.ins;
    items[1] = (Py_ssize_t)l.channels * (l.gates ? 4 : 1) * (l.down == 1 ? 36 * l.ins : 9 * l.ins + l.channels);
    items[2] = (Py_ssize_t)l.channels * l.channels * 4;
    items[3] = (Py_ssize_t)l.channels * (l.gates ? 4 : 1);
    items[4] = items[5] = items[6] = items[7] = states;
    for (i = 0; i < 8; i++)
        if (objects[i] != Py_None && hold(&buffers[i], objects[i], 'f', items[i], i >= 6, names[i]) < 0)
            goto done;
    if (!buffers[0].held || !buffers[1].held || !buffers[3].held || !buffers[6].held || (l.gates && !buffers[7].held) ||
        buffers[4].held != buffers[5].held || (!l.gates && buffers[4].held) || (l.down == 1 && buffers[4].held && !buffers[2].held) ||
        first < 0 || last < first || last > vz_layer_parts(&l)) {
        PyErr_SetString(PyExc_ValueError, "layer: arrays or parts that do not fit together");
        goto done;
    }
    l.x = buffers[0].view.buf;
    l.kernel = buffers[1].view.buf;
    l.hidden = buffers[2].held ? buffers[2].view.buf : NULL;
    l.bias = buffers[3].view.buf;
    l.h = buffers[4].held ? buffers[4].view.buf : NULL;
    l.c = buffers[5].held ? buffers[5].view.buf : NULL;
    l.new_h = buffers[6].view.buf;
    l.new_c = buffers[7].held ? buffers[7].view.buf : NULL;
    Py_BEGIN_ALLOW_THREADS
    status = vz_layer_run(&l, first, last);
    Py_END_ALLOW_THREADS
    result = status ? PyErr_NoMemory() : Py_BuildValue("");
done:
    for (i = 0; i < 8; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *layer_parts(PyObject *self, PyObject *args)
{
    vz_layer l;

    (void)self;
    memset(&l, 0, sizeof l);
    if (!PyArg_ParseTuple(args, "(iiiiiiii)", &l.images, &l.rows, &l.cols, &l.ins, &l.channels, &l.up, &l.down, &l.gates))
        return NULL;
    return layer_sizes(&l) < 0 ? NULL : PyLong_FromLongLong(vz_layer_parts(&l));
}

/* points(places, ins, outs, tanh, x, kernel, bias, out) */
static PyObject *points(PyObject *self, PyObject *args)
{
    static const char *const names[4] = {"x", "kernel", "bias", "out"};
    PyObject *objects[4], *result = NULL;
    buffer buffers[4];
    Py_ssize_t places, items[4];
    int ins, outs, tanh, i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    if (!PyArg_ParseTuple(args, "niiiOOOO", &places, &ins, &outs, &tanh, &objects[0], &objects[1], &objects[2], &objects[3]))
        return NULL;
    if (!vz_layers_possible()) {
        PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX2 and FMA");
        return NULL;
    }
    if (places < 1 || ins < 1 || ins > 4096 || outs < 16 || outs > 4096 || outs % 16 || places > PY_SSIZE_T_MAX / 4 / 4096) {
        PyErr_SetString(PyExc_ValueError, "points: sizes out of range");
        return NULL;
    }
    items[0] = places * ins;
    items[1] = (Py_ssize_t)ins * outs;
    items[2] = outs;
    items[3] = places * outs;
    for (i = 0; i < 4; i++)
        if (hold(&buffers[i], objects[i], 'f', items[i], i == 3, names[i]) < 0)
            goto done;
    Py_BEGIN_ALLOW_THREADS
    status = vz_points(buffers[0].view.buf, (size_t)places, (size_t)ins, (size_t)outs, buffers[1].view.buf, buffers[2].view.buf, tanh,
                       buffers[3].view.buf);
    Py_END_ALLOW_THREADS
    result = status ? PyErr_NoMemory() : Py_BuildValue("");
done:
    for (i = 0; i < 4; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *network_status(int status)
{
    return status == VZ_NO_MEMORY ? PyErr_NoMemory() : PyBool_FromLong(status == VZ_OK);
}

/* Items of a kernel of vz_convolution: its segments, and the numbers in one. */
static Py_ssize_t kernel_items(int outs, int segments, int numbers)
{
    return (Py_ssize_t)(outs + 7) / 8 * 8 * segments * ((numbers + 1) / 2 * 2);
}

static int convolution_sizes(const vz_convolution *l, int folded)
{
    const int32_t limit = 1 << 16, most = 4096;

    if (!vz_layers_possible())
        PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX2 and FMA");
    else if (l->height < 1 || l->width < 1 || l->rows < 1 || l->cols < 1 || l->height > limit || l->width > limit ||
             l->rows > limit || l->cols > limit || l->ins < 1 || l->ins > most || l->outs < 1 || l->outs > most ||
             l->kernel_rows < 1 || l->kernel_rows > 16 || l->kernel_cols < 1 || l->kernel_cols > 16 || l->stride < 1 ||
             l->stride > 16 || l->dilation < 1 || l->dilation > 16 || l->top < 0 || l->left < 0 || l->top > 256 || l->left > 256 ||
             l->levels < 1 || l->levels > INT16_MAX || (folded && (l->ins > 4 || l->levels < 255 * 32 || l->dilation > 1)) ||
             (int64_t)(l->rows - 1) * l->stride >= l->height + 2 * l->top ||
             (int64_t)(l->cols - 1) * l->stride >= l->width + 2 * l->left ||
             ((int64_t)l->height + 2 * l->top + 512) * ((int64_t)l->width + 2 * l->left + 512) > INT32_MAX / l->ins / (folded ? 2 : 1) ||
             (int64_t)l->rows * l->cols > INT32_MAX / l->outs)
        PyErr_SetString(PyExc_ValueError, "convolve: sizes out of range");
    else
        return 0;
    return -1;
}

/* convolve((height, width, ins, rows, cols, outs, kernel_rows, kernel_cols, stride, dilation, top, left, relu, levels),
 *          x, nothing or None, kernel, scale, bias, added or None, field, out): whether all numbers were finite */
static PyObject *convolve(PyObject *self, PyObject *args)
{
    enum { X, NOTHING, KERNEL, SCALE, BIAS, ADDED, FIELD, OUT, ALL };
    static const char *const names[ALL] = {"x", "nothing", "kernel", "scale", "bias", "added", "field", "out"};
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t items[ALL];
    vz_convolution l;
    int i, folded, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    memset(&l, 0, sizeof l);
    if (!PyArg_ParseTuple(args, "(iiiiiiiiiiiiii)OOOOOOOO", &l.height, &l.width, &l.ins, &l.rows, &l.cols, &l.outs, &l.kernel_rows,
                          &l.kernel_cols, &l.stride, &l.dilation, &l.top, &l.left, &l.relu, &l.levels, &objects[0], &objects[1],
                          &objects[2], &objects[3], &objects[4], &objects[5], &objects[6], &objects[7]))
        return NULL;
    folded = objects[NOTHING] != Py_None;
    if (convolution_sizes(&l, folded) < 0)
        return NULL;
    items[X] = (Py_ssize_t)l.height * l.width * l.ins;
    items[NOTHING] = l.ins;
    items[KERNEL] = l.dilation > 1 ? kernel_items(l.outs, l.kernel_rows * l.kernel_cols, l.ins)
                                   : kernel_items(l.outs, l.kernel_rows, l.kernel_cols * l.ins * (folded ? l.stride * l.stride : 1));
    items[SCALE] = items[BIAS] = (Py_ssize_t)(l.outs + 7) / 8 * 8;
    items[ADDED] = items[OUT] = (Py_ssize_t)l.rows * l.cols * l.outs;
    items[FIELD] = -1;
    for (i = 0; i < ALL; i++) {
        const char format = i == NOTHING || i == KERNEL || i == FIELD ? 'h' : i == X && folded ? 'B' : 'f';

        if (objects[i] != Py_None && hold(&buffers[i], objects[i], format, items[i], i >= FIELD, names[i]) < 0)
            goto done;
        if (objects[i] == Py_None && i != NOTHING && i != ADDED) {
            PyErr_Format(PyExc_TypeError, "%s: a buffer is wanted", names[i]);
            goto done;
        }
    }
    if (folded) {
        l.pixels = buffers[X].view.buf;
        l.nothing = buffers[NOTHING].view.buf;
    } else
        l.x = buffers[X].view.buf;
    l.kernel = buffers[KERNEL].view.buf;
    l.scale = buffers[SCALE].view.buf;
    l.bias = buffers[BIAS].view.buf;
    l.added = buffers[ADDED].held ? buffers[ADDED].view.buf : NULL;
    l.field = buffers[FIELD].view.buf;
    l.out = buffers[OUT].view.buf;
    if ((size_t)(buffers[FIELD].view.len / 2) < vz_convolution_field(&l)) {
        PyErr_Format(PyExc_ValueError, "field: %zd items wanted", (Py_ssize_t)vz_convolution_field(&l));
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = vz_convolve(&l);
    Py_END_ALLOW_THREADS
    result = network_status(status);
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

/* separate((height, width, channels, inner, dilation, widen_levels, narrow_levels), x, taps, taps_bias, widen, its scale, its bias,
 *          narrow, its scale, its bias, out): whether all numbers were finite */
static PyObject *separate(PyObject *self, PyObject *args)
{
    enum { X, TAPS, TAPS_BIAS, WIDEN, WIDEN_SCALE, WIDEN_BIAS, NARROW, NARROW_SCALE, NARROW_BIAS, OUT, ALL };
    static const char formats[ALL + 1] = "fffhffhfff";
    PyObject *objects[ALL], *result = NULL;
    buffer buffers[ALL];
    Py_ssize_t items[ALL];
    vz_separable l;
    int i, status;

    (void)self;
    memset(buffers, 0, sizeof buffers);
    memset(&l, 0, sizeof l);
    if (!PyArg_ParseTuple(args, "(iiiiiii)OOOOOOOOOO", &l.height, &l.width, &l.channels, &l.inner, &l.dilation, &l.widen_levels,
                          &l.narrow_levels, &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &objects[5], &objects[6],
                          &objects[7], &objects[8], &objects[9]))
        return NULL;
    if (!vz_layers_possible()) {
        PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX2 and FMA");
        return NULL;
    }
    if (l.height < 1 || l.width < 1 || l.height > 1 << 16 || l.width > 1 << 16 || l.channels < 8 || l.channels > 4096 ||
        l.channels % 8 || l.inner < 8 || l.inner > 4096 || l.inner % 8 || l.dilation < 1 || l.dilation > 16 || l.widen_levels < 1 ||
        l.widen_levels > INT16_MAX || l.narrow_levels < 1 || l.narrow_levels > INT16_MAX ||
        (int64_t)l.height * l.width > INT32_MAX / l.channels) {
        PyErr_SetString(PyExc_ValueError, "separate: sizes out of range");
        return NULL;
    }
    items[X] = items[OUT] = (Py_ssize_t)l.height * l.width * l.channels;
    items[TAPS] = (Py_ssize_t)9 * l.channels;
    items[TAPS_BIAS] = items[NARROW_SCALE] = items[NARROW_BIAS] = l.channels;
    items[WIDEN] = items[NARROW] = (Py_ssize_t)l.channels * l.inner;
    items[WIDEN_SCALE] = items[WIDEN_BIAS] = l.inner;
    for (i = 0; i < ALL; i++)
        if (hold(&buffers[i], objects[i], formats[i], items[i], i == OUT, "separate") < 0)
            goto done;
    l.x = buffers[X].view.buf;
    l.taps = buffers[TAPS].view.buf;
    l.taps_bias = buffers[TAPS_BIAS].view.buf;
    l.widen = buffers[WIDEN].view.buf;
    l.widen_scale = buffers[WIDEN_SCALE].view.buf;
    l.widen_bias = buffers[WIDEN_BIAS].view.buf;
    l.narrow = buffers[NARROW].view.buf;
    l.narrow_scale = buffers[NARROW_SCALE].view.buf;
    l.narrow_bias = buffers[NARROW_BIAS].view.buf;
    l.out = buffers[OUT].view.buf;
    Py_BEGIN_ALLOW_THREADS
    status = vz_separate(&l);
    Py_END_ALLOW_THREADS
    result = network_status(status);
done:
    for (i = 0; i < ALL; i++)
        release(&buffers[i]);
    return result;
}

/* Both of pictures.c: (images, height, width, side, strength, [both,] first, image or None, last). */
static PyObject *pictures(PyObject *args, int patches)
{
    PyObject *objects[3], *result = NULL;
    buffer buffers[3];
    vz_pictures v;
    Py_ssize_t items;
    int both = 0, i;

    memset(buffers, 0, sizeof buffers);
    if (!(patches ? PyArg_ParseTuple(args, "iiiifiOOO", &v.images, &v.height, &v.width, &v.side, &v.strength, &both, &objects[0],
                                     &objects[1], &objects[2])
                  : PyArg_ParseTuple(args, "iiiifOOO", &v.images, &v.height, &v.width, &v.side, &v.strength, &objects[0],
                                     &objects[1], &objects[2])))
        return NULL;
    if (v.images < 1 || v.height < 8 || v.width < 8 || v.height % 8 || v.width % 8 || v.side < 1 || 8 % v.side ||
        v.height > 1 << 20 || v.width > 1 << 20 || v.images > PY_SSIZE_T_MAX / 64 / v.height / v.width) {
        PyErr_SetString(PyExc_ValueError, "pictures: sizes out of range");
        return NULL;
    }
    items = (Py_ssize_t)v.images * 3 * v.height * v.width;
    if (hold(&buffers[0], objects[0], 'f', items, 0, "first") < 0 ||
        (objects[1] != Py_None && hold(&buffers[1], objects[1], 'f', items, 0, "image") < 0) ||
        hold(&buffers[2], objects[2], 'f', both ? 2 * items : items, 1, "last") < 0)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    if (patches)
        vz_picture_patches(&v, buffers[0].view.buf, buffers[1].held ? buffers[1].view.buf : NULL, both, buffers[2].view.buf);
    else
        vz_picture_improve(&v, buffers[0].view.buf, buffers[1].held ? buffers[1].view.buf : NULL, buffers[2].view.buf);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("");
done:
    for (i = 0; i < 3; i++)
        release(&buffers[i]);
    return result;
}

static PyObject *picture_patches(PyObject *self, PyObject *args)
{
    (void)self;
    return pictures(args, 1);
}

static PyObject *picture_improve(PyObject *self, PyObject *args)
{
    (void)self;
    return pictures(args, 0);
}

static PyMethodDef methods[] = {
    {"huffman_table", huffman_table, METH_VARARGS, "huffman_table(counts, values): a table for decode_scan, or None"},
    {"decode_scan", decode_scan, METH_VARARGS, "decode_scan(...): (status, offset of the next marker)"},
    {"encode_scans", encode_scans, METH_VARARGS, "encode_scans(...): (status, DHT, SOS and data of all scans)"},
    {"standard_lengths", standard_lengths, METH_NOARGS, "standard_lengths(): code lengths of table K.5 by symbol"},
    {"forward", forward, METH_VARARGS, "forward(...): fills planes of DCT coefficients; status"},
    {"halve", halve, METH_VARARGS, "halve(...): fills blocks of means; status"},
    {"quantise", quantise, METH_VARARGS, "quantise(...): fills quantised coefficients; status"},
    {"settle_dc", settle_dc, METH_VARARGS, "settle_dc(...): fills DC values; status"},
    {"context_model", context_model, METH_VARARGS, "context_model(...): a model for the next three"},
    {"context_encode", context_encode, METH_VARARGS, "context_encode(...): fills data and sizes; (status, 0)"},
    {"context_decode", context_decode, METH_VARARGS, "context_decode(...): fills bits; (status, image at fault)"},
    {"context_cost", context_cost, METH_VARARGS, "context_cost(...): fills costs in 1/65536 bits; (status, 0)"},
    {"layers_possible", layers_possible, METH_NOARGS, "layers_possible(): whether the next seven can be called here"},
    {"layer_parts", layer_parts, METH_VARARGS, "layer_parts(sizes): in how many parts threads can share a layer"},
    {"layer_run", layer_run, METH_VARARGS, "layer_run(sizes, first, last, ...): fills parts of new_h and new_c"},
    {"points", points, METH_VARARGS, "points(...): fills the outputs of a 1x1 convolution"},
    {"convolve", convolve, METH_VARARGS, "convolve(sizes, ...): fills the outputs of a convolution; whether all was finite"},
    {"separate", separate, METH_VARARGS, "separate(sizes, ...): fills the outputs of a separable block; whether all was finite"},
    {"picture_patches", picture_patches, METH_VARARGS, "picture_patches(...): fills what an encoder's first layer sees"},
    {"picture_improve", picture_improve, METH_VARARGS, "picture_improve(...): fills an image with a decoder's outputs"},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "vizcomp._native", "Loops of vizcomp.jpeg, vizcomp.vzc.coding, vizcomp.weights and vizcomp.neural.", 0, methods,
                                 slots,                 NULL,              NULL,                             NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
