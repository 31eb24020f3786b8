/* Posted calls on fdmux: fdmux_post. */
#include "post.h"

#include <fdmux.h>

static struct post *post;
static struct fdmux_loop *loop;

static int on_call(struct fdmux_loop *caller, void *userdata)
{
    return post_on_call(post, userdata) ? fdmux_loop_stop(caller) : 0;
}

static int open_loop(struct post *all)
{
    post = all;
    return fdmux_loop_create(NULL, &loop);
}

static int post_call(void *userdata)
{
    return fdmux_post(loop, on_call, userdata);
}

static int run(void)
{
    return fdmux_loop_run(loop);
}

int main(int argc, char **argv)
{
    return post_main(argc, argv, &(struct post_peer){open_loop, post_call, run});
}
