/* hold_fixtures.h: holds, and functions that take holds, which record what happens.
 *
 * Each event adds one letter to a text: 'a' and 'b' for entering a hold, 'A' and 'B'
 * for leaving it, '.' for a call of a function. */
#ifndef FDMUX_TESTS_HOLD_FIXTURES_H
#define FDMUX_TESTS_HOLD_FIXTURES_H

#include "fixtures.h"

extern struct fdmux_hold hold_a;
extern struct fdmux_hold hold_b;

void note_letter(char letter);
/* Compare the text recorded so far, and clear it. */
#define EXPECT(letters) expect_letters(letters, __FILE__, __LINE__)
void expect_letters(const char *expected, const char *file, int line);

/* For a hold whose userdata is two letters: one for entering, one for leaving. */
void *enter_with_letter(void *userdata);
void leave_with_letter(void *held, void *userdata);

/* Take `hold`, unless it is NULL, and record the call. */
int hold_and_note(struct fdmux_loop *loop, void *hold);
/* Functions for a loop that call hold_and_note; their userdata is the hold. */
int hold_in_post(struct fdmux_loop *loop, void *hold);
int hold_in_timer(struct fdmux_loop *loop, uint64_t timer, void *hold); /* and hooks */
int hold_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *hold);

void post_holding(struct fdmux_loop *loop, struct fdmux_hold *hold);
void arm_holding(struct fdmux_loop *loop, struct fdmux_hold *hold); /* due at once */

#endif
