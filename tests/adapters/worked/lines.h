/* lines.h: a small client library, as strangers write them: it sends lines over TCP and
 * gives back the lines that arrive. It owns its socket, and knows no loop. */
#ifndef LINES_H
#define LINES_H

struct lines;
typedef void (*lines_fn)(struct lines *lines, const char *line, void *userdata);

/* Returns NULL without memory. */
struct lines *lines_new(int port, lines_fn fn, void *userdata);
/* Connect to the port, or again; closes the old socket. Returns 0 or -errno. */
int lines_connect(struct lines *lines);
/* Queue a line of at most 80 bytes. Returns 0 or -ENOBUFS. */
int lines_send(struct lines *lines, const char *line);
/* Read and call back, write what is queued. -ECONNRESET: lost; the socket is closed. */
int lines_process(struct lines *lines);
int lines_fd(const struct lines *lines); /* -1: not connected */
int lines_wants_write(const struct lines *lines);
/* Not inside a callback, as with many libraries. */
void lines_free(struct lines *lines);

#endif /* LINES_H */
