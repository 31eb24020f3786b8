/* kqueue_model.h: what tests may ask of the model beyond kqueue(2). */
#ifndef FDMUX_KQUEUE_MODEL_H
#define FDMUX_KQUEUE_MODEL_H

/* From now on, EV_ADD of `filter` fails with `error`, as on a system without that
 * filter; 0 for none. */
void kqueue_model_refuse(int filter, int error);
/* How many descriptors the model has open beside those that it has given out. */
int kqueue_model_hidden_fds(void);

#endif
