/* glib_host.c: an fdmux loop as a GSource of GLib, without a thread.
 *
 * GLib polls the one descriptor of the source beside those of everybody else (of GTK,
 * for one); `prepare` has nothing to say, as the deadlines are inside that descriptor.
 */
#include <fdmux.h>

#include <glib.h>

#include "proof.h"

struct guest_source {
    GSource source; /* first: GLib allocates and casts */
    gpointer tag;   /* of the descriptor */
    struct proof *proof;
    GMainLoop *host;
};

static gboolean check(GSource *source)
{
    struct guest_source *guest = (struct guest_source *)source;

    return (g_source_query_unix_fd(source, guest->tag) & G_IO_IN) != 0;
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer userdata)
{
    struct guest_source *guest = (struct guest_source *)source;

    (void)callback, (void)userdata;
    if (proof_dispatch(guest->proof))
        return G_SOURCE_CONTINUE;
    g_main_loop_quit(guest->host);
    return G_SOURCE_REMOVE;
}

static GSource *attach(struct proof *proof, GMainLoop *host)
{
    static GSourceFuncs functions = {.check = check, .dispatch = dispatch};
    GSource *source = g_source_new(&functions, sizeof(struct guest_source));
    struct guest_source *guest = (struct guest_source *)source;

    guest->proof = proof;
    guest->host = host;
    guest->tag = g_source_add_unix_fd(source, fdmux_loop_fd(proof->loop), G_IO_IN);
    (void)g_source_attach(source, g_main_loop_get_context(host)); /* its id */
    return source;
}

/* The last of all may be a tick of ours, after which the guest has nothing to say. */
static gboolean on_timer(gpointer userdata)
{
    struct guest_source *guest = userdata;

    guest->proof->host_count++;
    if (proof_is_complete(guest->proof))
        g_main_loop_quit(guest->host);
    return G_SOURCE_CONTINUE;
}

int main(void)
{
    struct proof proof;
    GMainLoop *host;
    GSource *source;
    guint timer;

    if (proof_start(&proof) < 0 || fdmux_loop_fd(proof.loop) < 0)
        return 1;
    host = g_main_loop_new(NULL, FALSE);
    source = attach(&proof, host);
    timer = g_timeout_add(HOST_MS, on_timer, source);
    g_main_loop_run(host);
    (void)g_source_remove(timer); /* it is there */
    g_source_destroy(source);     /* idempotent; the loop is watched no more */
    g_source_unref(source);
    g_main_loop_unref(host);
    return proof_end(&proof, "GLib");
}
