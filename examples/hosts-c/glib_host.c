/* glib_host.c: an fdmux loop as a GSource of GLib, without a thread.
 *
 * GLib polls the descriptor of this source beside all others, such as those of GTK. The
 * source needs no `prepare`, since the descriptor also becomes readable for timers. */
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

/* The host's timer may be the last event; the guest then has nothing to dispatch. */
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
    (void)g_source_remove(timer); /* it exists */
    g_source_destroy(source);     /* idempotent; ends the watching of the loop */
    g_source_unref(source);
    g_main_loop_unref(host);
    return proof_end(&proof, "GLib");
}
