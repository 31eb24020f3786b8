/* hold_fixtures.c: see hold_fixtures.h. */
#include "hold_fixtures.h"

static char text[64]; /* each case runs in its own process */
static size_t length;

static char letters_of_a[] = "aA";
static char letters_of_b[] = "bB";
struct fdmux_hold hold_a = {enter_with_letter, leave_with_letter, letters_of_a};
struct fdmux_hold hold_b = {enter_with_letter, leave_with_letter, letters_of_b};

void note_letter(char letter)
{
    CHECK(length + 1 < sizeof text);
    text[length++] = letter;
}

void expect_letters(const char *expected, const char *file, int line)
{
    if (strcmp(text, expected) != 0)
        check_fail(file, line, "\"%s\" and not \"%s\"", text, expected);
    memset(text, 0, sizeof text);
    length = 0;
}

void *enter_with_letter(void *userdata)
{
    char *letters = userdata;

    note_letter(letters[0]);
    return &letters[1];
}

void leave_with_letter(void *held, void *userdata)
{
    CHECK(held == (char *)userdata + 1); /* what `enter` returned */
    note_letter(*(char *)held);
}

int hold_and_note(struct fdmux_loop *loop, void *hold)
{
    if (hold != NULL)
        CHECK_EQ(fdmux_loop_hold(loop, hold), 0);
    note_letter('.');
    return 0;
}

int hold_in_post(struct fdmux_loop *loop, void *hold)
{
    return loop == NULL ? 0 : hold_and_note(loop, hold);
}

int hold_in_timer(struct fdmux_loop *loop, uint64_t timer, void *hold)
{
    (void)timer;
    return hold_and_note(loop, hold);
}

int hold_in_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *hold)
{
    (void)io, (void)events;
    return hold_and_note(loop, hold);
}

void post_holding(struct fdmux_loop *loop, struct fdmux_hold *hold)
{
    CHECK_EQ(fdmux_post(loop, hold_in_post, hold), 0);
}

void arm_holding(struct fdmux_loop *loop, struct fdmux_hold *hold)
{
    CHECK_EQ(fdmux_timer_arm(loop, add_timer_with(loop, hold_in_timer, hold), 0, 0), 0);
}
