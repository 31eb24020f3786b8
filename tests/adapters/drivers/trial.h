/* trial.h: one scenario of one library, run in any loop. */
#ifndef TRIAL_H
#define TRIAL_H

#include "driver.h"

/* The driver that is linked: -DLIBRARY=library_hiredis. */
extern const struct library LIBRARY;

struct trial_report {
    char error[160]; /* empty: the scenario passed */
    int verified_count;
    int failed_count;
    int lost_count;
};

/* Begin `scenario`. `control_fd` takes 'k' (kill the server) and 's' (start it), and
 * gives the same letter back when that is done. `ended` is called once, in a function
 * of the loop. Returns the trial, or NULL. */
struct trial *trial_begin(struct fdmux_loop *loop, const struct library *library,
                          const char *scenario, const char *address, const char *silent,
                          int control_fd, void (*ended)(void *userdata),
                          void *userdata);

/* In the scenario "outside", ask what is next. Call it again and again, outside of the
 * functions of the loop, until it returns 0. */
int trial_ask(struct trial *trial);

/* Judge, and free everything. Call it after the loop was closed. */
struct trial_report trial_finish(struct trial *trial);

#endif /* TRIAL_H */
