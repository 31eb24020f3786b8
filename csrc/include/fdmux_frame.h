/* fdmux_frame.h: a framer cuts the bytes of a stream into frames, in C.
 *
 * An extension that knows a protocol gives Python a capsule named "fdmux.framer" that
 * points at a struct fdmux_framer. A framing object returns it from __fdmux_framer__().
 * fdmux.FrameHandler then gets all complete frames of a receive as one list. Optional;
 * needs neither fdmux.h nor Python.h. */
#ifndef FDMUX_FRAME_H
#define FDMUX_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FDMUX_FRAME_PARTS_MAX 1024

/* A part of a frame: `length` bytes, `first` bytes after the start of the frame. All of
 * them lie inside the frame. */
struct fdmux_frame_part {
    size_t first;
    size_t length;
};

/* The frame at the start of the data. Python gets part 0 as bytes, or with `is_list` 1
 * a list of bytes, one for each part. */
struct fdmux_frame {
    size_t size; /* in the data, with its delimiter or prefix */
    uint32_t part_count;
    uint32_t is_list;
    struct fdmux_frame_part parts[FDMUX_FRAME_PARTS_MAX];
};

/* Find the first frame in the `length` bytes at `data`. The first `seen` of them were
 * there at the last call, which returned 0.
 *
 * Returns 1 and fills `ret_frame`. Returns 0 if the frame is not complete, and may set
 * ret_frame->size to how many bytes are needed before the next call (0: one more).
 * Returns -EMSGSIZE for a frame that is or will be too long, -EPROTO for malformed
 * bytes: both close the stream. Called with the GIL held, on the loop's thread. */
typedef int (*fdmux_frame_cut_fn)(const unsigned char *data, size_t length, size_t seen,
                                  struct fdmux_frame *ret_frame, void *userdata);

struct fdmux_framer {
    size_t struct_size;
    fdmux_frame_cut_fn cut;
    void *userdata;
};

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_FRAME_H */
