/* resp_framer.c: the module resp_framer: cuts RESP requests in C.
 *
 * Accepts the same requests and limits as resp.py. Its one rule: it keeps no state
 * between calls, so one framer serves any number of connections. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fdmux_frame.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define BULK_MAX ((size_t)512 * 1024)
#define REQUEST_MAX (BULK_MAX + (size_t)64 * 1024)
#define ARGUMENTS_MAX FDMUX_FRAME_PARTS_MAX
#define LINE_SIZE_MAX 4096
#define DIGITS_MAX 7

/* The received bytes, and how far they are cut. */
struct cursor {
    const unsigned char *data;
    size_t length;
    size_t at;
};

/* Find the end of the line at the cursor. Returns 1; 0 if it is incomplete. */
static int find_line(const struct cursor *cursor, size_t *ret_size)
{
    const unsigned char *line = cursor->data + cursor->at;
    size_t left = cursor->length - cursor->at;
    size_t size = left < LINE_SIZE_MAX ? left : LINE_SIZE_MAX;

    for (size_t i = 0; i + 1 < size; i++) {
        const unsigned char *found = memchr(line + i, '\r', size - 1 - i);

        if (found == NULL)
            break;
        i = (size_t)(found - line);
        if (found[1] == '\n') {
            *ret_size = i;
            return 1;
        }
    }
    return left < LINE_SIZE_MAX ? 0 : -EMSGSIZE;
}

/* Parse a head: a sign, then a count or a length. */
static int parse_number(const unsigned char *line, size_t size, size_t maximum,
                        size_t *ret_number)
{
    size_t number = 0;

    if (size < 2 || size > 1 + DIGITS_MAX)
        return -EPROTO;
    for (size_t i = 1; i < size; i++) {
        if (line[i] < '0' || line[i] > '9')
            return -EPROTO;
        number = number * 10 + (size_t)(line[i] - '0');
    }
    if (number > maximum)
        return -EMSGSIZE;
    *ret_number = number;
    return 0;
}

/* Cut an argument and its head. Returns 1; 0 if it is incomplete, with *ret_wanted. */
static int cut_argument(struct cursor *cursor, size_t room,
                        struct fdmux_frame_part *ret_part, size_t *ret_wanted)
{
    const unsigned char *line = cursor->data + cursor->at;
    size_t maximum = room < BULK_MAX ? room : BULK_MAX;
    size_t size, end;
    int r = find_line(cursor, &size);

    if (r <= 0)
        return r;
    r = line[0] == '$' ? parse_number(line, size, maximum, &ret_part->length) : -EPROTO;
    if (r < 0)
        return r;
    ret_part->first = cursor->at + size + 2;
    end = ret_part->first + ret_part->length;
    if (cursor->length < end + 2) {
        *ret_wanted = end + 2;
        return 0;
    }
    cursor->at = end + 2;
    return memcmp(cursor->data + end, "\r\n", 2) == 0 ? 1 : -EPROTO;
}

static int cut_array(struct cursor *cursor, size_t count, struct fdmux_frame *ret_frame)
{
    size_t room = REQUEST_MAX;

    for (size_t i = 0; i < count; i++) {
        struct fdmux_frame_part *part = &ret_frame->parts[i];
        int r = cut_argument(cursor, room, part, &ret_frame->size);

        if (r <= 0)
            return r;
        room -= part->length;
    }
    ret_frame->part_count = (uint32_t)count;
    return 1;
}

static bool is_space(unsigned char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Cut an inline command, as people type them, into words. */
static int cut_words(const unsigned char *line, size_t size,
                     struct fdmux_frame *ret_frame)
{
    uint32_t count = 0;
    bool is_inside = false;

    for (size_t i = 0; i < size; i++) {
        if (!is_inside && !is_space(line[i])) {
            if (count == ARGUMENTS_MAX)
                return -EMSGSIZE;
            ret_frame->parts[count].first = i;
            ret_frame->parts[count++].length = 0;
        }
        is_inside = !is_space(line[i]);
        if (is_inside)
            ret_frame->parts[count - 1].length++;
    }
    ret_frame->part_count = count;
    return 1;
}

/* fdmux_frame_cut_fn. A request without words is a frame without parts. */
static int cut(const unsigned char *data, size_t length, size_t seen,
               struct fdmux_frame *ret_frame, void *userdata)
{
    struct cursor cursor = {.data = data, .length = length};
    size_t size, count;
    int r = find_line(&cursor, &size);

    (void)seen, (void)userdata;
    if (r <= 0)
        return r;
    cursor.at = size + 2;
    if (data[0] == '*') {
        r = parse_number(data, size, ARGUMENTS_MAX, &count);
        if (r == 0)
            r = cut_array(&cursor, count, ret_frame);
    } else {
        r = cut_words(data, size, ret_frame);
    }
    if (r <= 0)
        return r;
    ret_frame->size = cursor.at;
    ret_frame->is_list = 1;
    return 1;
}

static struct fdmux_framer framer = {.struct_size = sizeof framer, .cut = cut};

static PyObject *make_framer(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyCapsule_New(&framer, "fdmux.framer", NULL);
}

static PyMethodDef methods[] = {
    {"framer", make_framer, METH_NOARGS,
     "framer($module, /)\n--\n\nReturn what cuts requests: lists of bytes."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "resp_framer",
    .m_doc = "Cuts RESP requests below Python.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_resp_framer(void);

PyMODINIT_FUNC PyInit_resp_framer(void)
{
    return PyModule_Create(&definition);
}
