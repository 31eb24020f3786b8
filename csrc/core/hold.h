/* hold.h: what functions of a loop hold until the batch is over, such as Python's GIL.
 *
 * Everything here runs without the loop's lock. */
#ifndef FDMUX_HOLD_H
#define FDMUX_HOLD_H

#include <stdbool.h>

struct fdmux_loop;

/* Between these two this thread calls functions of the loop. */
void fdmux__calling_begin(struct fdmux_loop *loop);
void fdmux__calling_end(struct fdmux_loop *loop);
/* Is this thread calling functions of the loop now? */
bool fdmux__is_calling_thread(const struct fdmux_loop *loop);
/* Call `leave` of every hold that was entered, last entered first. */
void fdmux__hold_leave_all(struct fdmux_loop *loop);

#endif
