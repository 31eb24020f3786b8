/* zmq_peer.c: a ROUTER that sends each message back; `zmq_peer tcp://127.0.0.1:PORT`.
 * It prints a line when it is bound, and runs until it is killed. */
#include <stdio.h>
#include <zmq.h>

int main(int argc, char **argv)
{
    void *context = zmq_ctx_new();
    void *router = zmq_socket(context, ZMQ_ROUTER);

    if (argc < 2 || zmq_bind(router, argv[1]) != 0) {
        perror("zmq_bind");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        zmq_msg_t part;
        int has_more;

        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, router, 0) < 0)
            return 1;
        has_more = zmq_msg_more(&part);
        if (zmq_msg_send(&part, router, has_more ? ZMQ_SNDMORE : 0) < 0)
            return 1;
    }
}
