/* fdmux_frame.h: a framer cuts the bytes of a stream into frames, below Python.
 *
 * An extension that knows a protocol gives Python a capsule named "fdmux.framer" that
 * points at a struct fdmux_framer. A framing object returns it from __fdmux_framer__();
 * fdmux.FrameHandler then gets a list of all frames that are whole, in one call.
 * Optional; needs neither fdmux.h nor Python.h. */
#ifndef FDMUX_FRAME_H
#define FDMUX_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FDMUX_FRAME_PARTS_MAX 1024

/* A piece of a frame: `length` bytes that begin `first` bytes behind the frame's start,
 * all of them inside the frame. */
struct fdmux_frame_part {
    size_t first;
    size_t length;
};

/* The frame at the beginning of the data. Python gets part 0 as bytes; or, if `is_list`
 * is 1, a list of bytes, one for each part. */
struct fdmux_frame {
    size_t size; /* bytes that it takes from the data, framing included */
    uint32_t part_count;
    uint32_t is_list;
    struct fdmux_frame_part parts[FDMUX_FRAME_PARTS_MAX];
};

/* Cut the first frame off `length` bytes at `data`, the first `seen` of which were
 * there at the last call, which has returned 0.
 *
 * Returns 1 and fills `ret_frame`; 0 if the frame is not whole, with ret_frame->size
 * set to how many bytes there must be before it is worth calling again (0: one more);
 * -EMSGSIZE for a frame that is or will be too long, -EPROTO for bytes that are none:
 * both close the stream. Called with the GIL held, on the loop's thread. */
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
