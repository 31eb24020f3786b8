/* hold_fixtures.h: holds, and functions that hold, that write down what happens.
 *
 * Everything is one letter in a text: 'a' and 'b' for entering a hold, 'A' and 'B' for
 * leaving it, '.' for a function. */
#ifndef FDMUX_TESTS_HOLD_FIXTURES_H
#define FDMUX_TESTS_HOLD_FIXTURES_H

#include "fixtures.h"

extern struct fdmux_hold hold_a;
extern struct fdmux_hold hold_b;

void note_letter(char letter);
/* The text so far; it begins anew. */
#define EXPECT(letters) expect_letters(letters, __FILE__, __LINE__)
void expect_letters(const char *expected, const char *file, int line);

/* Of a hold whose userdata are two letters, for entering and for leaving. */
void *enter_with_letter(void *userdata);
void leave_with_letter(void *held, void *userdata);

/* What functions do: hold this, if it is not NULL, and note that they were called. */
int hold_and_note(struct fdmux_loop *loop, void *hold);
/* Functions that do it; their userdata is the hold. */
int hold_in_post(struct fdmux_loop *loop, void *hold);
int hold_in_timer(struct fdmux_loop *loop, uint64_t timer, void *hold); /* and hooks */
int hold_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *hold);

void post_holding(struct fdmux_loop *loop, struct fdmux_hold *hold);
void arm_holding(struct fdmux_loop *loop, struct fdmux_hold *hold); /* due at once */

#endif
