/* frames.c: cuts the data of a stream into frames, and calls Python with a list of
 * them.
 *
 * A framer (fdmux_frame.h) finds the frames. The bytes of an incomplete frame (the
 * rest) are kept with the stream, in memory that is freed when the frame is complete.
 * */
#include "frames.h"

#include <errno.h>
#include <string.h>

#define NAME "fdmux.framer"

/* ---- the rest: bytes of an incomplete frame ------------------------------------- */

struct delivery_rest {
    size_t length;
    size_t seen;   /* bytes that the framer got in its last call */
    size_t wanted; /* bytes that are needed before its next call */
    unsigned char bytes[];
};

void frames_drop_rest(struct stream_object *stream)
{
    if (stream->is_transport) /* it has another field in this place */
        return;
    PyMem_Free(stream->rest);
    stream->rest = NULL;
}

PyObject *frames_take_rest(PyObject *self, PyObject *unused)
{
    struct stream_object *stream = (struct stream_object *)self;
    const struct delivery_rest *rest = stream->rest;
    PyObject *bytes =
        PyBytes_FromStringAndSize(rest == NULL ? NULL : (const char *)rest->bytes,
                                  rest == NULL ? 0 : (Py_ssize_t)rest->length);

    (void)unused;
    frames_drop_rest(stream);
    return bytes;
}

/* Append to the rest. Its memory doubles, so a frame that arrives byte by byte costs
 * O(length). */
static int keep(struct stream_object *stream, const unsigned char *data, size_t length)
{
    size_t before = stream->rest == NULL ? 0 : stream->rest->length;
    size_t capacity = 64;
    struct delivery_rest *rest;

    while (capacity < before + length)
        capacity *= 2;
    rest = PyMem_Realloc(stream->rest, sizeof *rest + capacity);
    if (rest == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stream->rest = rest;
    memcpy(rest->bytes + before, data, length);
    rest->length = before + length;
    return 0;
}

/* ---- cutting -------------------------------------------------------------------- */

/* The data that is not cut yet, and the frames so far. */
struct cut {
    const struct fdmux_framer *framer;
    struct fdmux_frame *frame; /* 16 KiB: too large for the stack */
    const unsigned char *data;
    size_t length;
    size_t seen;
    size_t wanted;
    PyObject *frames;
};

static PyObject *part_of(const struct cut *cut, const struct fdmux_frame_part *part)
{
    size_t size = cut->frame->size;

    if (part->first > size || part->length > size - part->first)
        return PyErr_Format(PyExc_ValueError,
                            "a framer returned a part outside of its frame");
    return PyBytes_FromStringAndSize((const char *)cut->data + part->first,
                                     (Py_ssize_t)part->length);
}

static PyObject *list_of(const struct cut *cut, const struct fdmux_frame *frame)
{
    PyObject *list = PyList_New((Py_ssize_t)frame->part_count);

    for (uint32_t i = 0; list != NULL && i < frame->part_count; i++) {
        PyObject *part = part_of(cut, &frame->parts[i]);

        if (part == NULL || PyList_SetItem(list, (Py_ssize_t)i, part) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static int append(struct cut *cut, const struct fdmux_frame *frame)
{
    bool is_sound = frame->size > 0 && frame->size <= cut->length &&
                    frame->part_count <= FDMUX_FRAME_PARTS_MAX &&
                    (frame->is_list || frame->part_count == 1);
    PyObject *object;
    int r;

    if (!is_sound) {
        PyErr_SetString(PyExc_ValueError, "a framer returned a malformed frame");
        return -1;
    }
    object = frame->is_list ? list_of(cut, frame) : part_of(cut, &frame->parts[0]);
    r = object == NULL ? -1 : PyList_Append(cut->frames, object);
    Py_XDECREF(object);
    cut->data += frame->size;
    cut->length -= frame->size;
    cut->seen = 0;
    return r;
}

/* Returns 0, or -1 with an exception. `*ret_error` is the error of the framer, or 0. */
static int cut_all(struct cut *cut, int *ret_error)
{
    struct fdmux_frame *frame = cut->frame;

    *ret_error = 0;
    while (cut->length > 0) {
        int r;

        frame->size = frame->part_count = frame->is_list = 0;
        r = cut->framer->cut(cut->data, cut->length, cut->seen, frame,
                             cut->framer->userdata);
        if (r == 0)
            cut->wanted = frame->size > cut->length ? frame->size : cut->length + 1;
        if (r < 0)
            *ret_error = r;
        if (r <= 0)
            return 0;
        if (append(cut, frame) < 0)
            return -1;
    }
    return 0;
}

/* Keep the bytes that are left as the rest. They may be in it already. */
static int keep_rest(struct stream_object *stream, const struct cut *cut)
{
    struct delivery_rest *rest = stream->rest;

    if (cut->length == 0) {
        frames_drop_rest(stream);
        return 0;
    }
    if (rest != NULL) {
        memmove(rest->bytes, cut->data, cut->length);
        rest->length = cut->length;
    } else if (keep(stream, cut->data, cut->length) < 0) {
        return -1;
    }
    stream->rest->seen = cut->length;
    stream->rest->wanted = cut->wanted;
    return 0;
}

static int cut_into(struct stream_object *stream, struct cut *cut,
                    const struct fdmux_stream_event *event, int *ret_error)
{
    cut->data = event->data;
    cut->length = event->length;
    *ret_error = 0;
    if (stream->rest != NULL) {
        cut->seen = stream->rest->seen;
        if (keep(stream, event->data, event->length) < 0)
            return -1;
        cut->data = stream->rest->bytes;
        cut->length = stream->rest->length;
        if (cut->length < stream->rest->wanted)
            return 0;
    }
    return cut_all(cut, ret_error) < 0 ? -1 : keep_rest(stream, cut);
}

static PyObject *call(const struct stream_object *stream, PyObject *frames)
{
    if (PyList_Size(frames) == 0)
        return delivery_new_ref(Py_None);
    return PyObject_CallFunctionObjArgs(stream->on_data, (PyObject *)stream, frames,
                                        NULL);
}

PyObject *frames_deliver(struct stream_object *stream,
                         const struct fdmux_stream_event *event, int *ret_error)
{
    struct cut cut = {
        .framer = PyCapsule_GetPointer(stream->framer, NAME),
        .frame = stream->delivery->frame,
    };
    PyObject *answer = NULL;

    cut.frames = cut.framer == NULL ? NULL : PyList_New(0);
    if (cut.frames != NULL && cut_into(stream, &cut, event, ret_error) == 0)
        answer = call(stream, cut.frames);
    Py_XDECREF(cut.frames);
    return answer;
}

int frames_finish(struct stream_object *stream, int error)
{
    PyObject *done = NULL;

    if (error < 0 && stream->is_open) {
        done = PyObject_CallMethod((PyObject *)stream, "_frame_failed", "i", -error);
        if (done == NULL)
            return -1;
    }
    Py_XDECREF(done);
    if (!stream->is_open)
        frames_drop_rest(stream);
    return 0;
}

/* ---- framers of fdmux ------------------------------------------------------------ */

struct delimited {
    struct fdmux_framer framer;
    size_t frame_max;
    size_t size;
    unsigned char delimiter[];
};

static const unsigned char *find(const unsigned char *data, size_t length,
                                 const unsigned char *what, size_t size)
{
    const unsigned char *end = data + length;

    while ((size_t)(end - data) >= size) {
        data = memchr(data, what[0], (size_t)(end - data) - size + 1);
        if (data == NULL || memcmp(data, what, size) == 0)
            return data;
        data++;
    }
    return NULL;
}

static int cut_delimited(const unsigned char *data, size_t length, size_t seen,
                         struct fdmux_frame *ret_frame, void *userdata)
{
    const struct delimited *how = userdata;
    size_t start = seen < how->size
                       ? 0
                       : seen - how->size + 1; /* a part of it may have been seen */
    size_t end = how->frame_max + how->size; /* past that the frame is too long */
    const unsigned char *found;

    if (end > length)
        end = length;
    found =
        start > end ? NULL : find(data + start, end - start, how->delimiter, how->size);
    if (found == NULL)
        return length >= how->frame_max + how->size ? -EMSGSIZE : 0;
    ret_frame->parts[0].first = 0;
    ret_frame->parts[0].length = (size_t)(found - data);
    ret_frame->size = ret_frame->parts[0].length + how->size;
    ret_frame->part_count = 1;
    return 1;
}

struct prefixed {
    struct fdmux_framer framer;
    uint64_t frame_max;
    size_t size; /* of the prefix; 0: each frame has frame_max bytes */
    bool is_little;
};

static uint64_t length_at(const struct prefixed *how, const unsigned char *data)
{
    uint64_t length = 0;

    for (size_t i = 0; i < how->size; i++)
        length = length << 8 | data[how->is_little ? how->size - 1 - i : i];
    return length;
}

static int cut_prefixed(const unsigned char *data, size_t length, size_t seen,
                        struct fdmux_frame *ret_frame, void *userdata)
{
    const struct prefixed *how = userdata;
    uint64_t size;

    (void)seen;
    ret_frame->size = how->size;
    if (length < how->size)
        return 0;
    size = how->size == 0 ? how->frame_max : length_at(how, data);
    if (size > how->frame_max)
        return -EMSGSIZE;
    ret_frame->size = how->size + (size_t)size;
    if (length < ret_frame->size)
        return 0;
    ret_frame->parts[0].first = how->size;
    ret_frame->parts[0].length = (size_t)size;
    ret_frame->part_count = 1;
    return 1;
}

static void free_framer(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, NAME));
}

static PyObject *capsule_of(struct fdmux_framer *framer, fdmux_frame_cut_fn cut)
{
    PyObject *capsule;

    framer->struct_size = sizeof *framer;
    framer->cut = cut;
    framer->userdata = framer;
    capsule = PyCapsule_New(framer, NAME, free_framer);
    if (capsule == NULL)
        PyMem_Free(framer);
    return capsule;
}

/* delimited(delimiter, frame_max) returns a capsule. */
PyObject *frames_delimited(PyObject *module, PyObject *args)
{
    struct delimited *how;
    const char *delimiter;
    Py_ssize_t size, frame_max;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#n:delimited", &delimiter, &size, &frame_max))
        return NULL;
    how = PyMem_Calloc(1, sizeof *how + (size_t)size);
    if (how == NULL)
        return PyErr_NoMemory();
    how->frame_max = (size_t)frame_max;
    how->size = (size_t)size;
    memcpy(how->delimiter, delimiter, (size_t)size);
    return capsule_of(&how->framer, cut_delimited);
}

/* length_prefixed(size, is_little, frame_max) returns a capsule. With size 0 each frame
 * has frame_max bytes. */
PyObject *frames_length_prefixed(PyObject *module, PyObject *args)
{
    struct prefixed *how;
    Py_ssize_t size, frame_max;
    int is_little;

    (void)module;
    if (!PyArg_ParseTuple(args, "npn:length_prefixed", &size, &is_little, &frame_max))
        return NULL;
    how = PyMem_Calloc(1, sizeof *how);
    if (how == NULL)
        return PyErr_NoMemory();
    how->frame_max = (uint64_t)frame_max;
    how->size = (size_t)size;
    how->is_little = is_little != 0;
    return capsule_of(&how->framer, cut_prefixed);
}

int frames_set_framer(PyObject *self, PyObject *value, void *unused)
{
    struct stream_object *stream = (struct stream_object *)self;
    const struct fdmux_framer *framer;
    PyObject *old = stream->framer;

    (void)unused;
    framer = value == NULL ? NULL : PyCapsule_GetPointer(value, NAME);
    if (framer == NULL)
        return -1;
    if (framer->struct_size != sizeof *framer || framer->cut == NULL) {
        PyErr_SetString(
            PyExc_ValueError,
            "set a framer: it has another version of fdmux_frame.h, or no cut");
        return -1;
    }
    if (stream->delivery == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "set a framer: the stream is not bound");
        return -1;
    }
    if (stream->delivery->frame == NULL)
        stream->delivery->frame = PyMem_Calloc(1, sizeof *stream->delivery->frame);
    if (stream->delivery->frame == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stream->framer = delivery_new_ref(value);
    stream->is_framed = true;
    Py_XDECREF(old);
    return 0;
}
