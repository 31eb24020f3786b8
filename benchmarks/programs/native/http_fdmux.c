/* GETs over HTTP in an fdmux loop, by our adapter for libcurl. */
#include "http_gets.h"

#include <curl/curl.h>
#include <fdmux/adapters/curl.h>

static struct fdmux_loop *loop;

static void on_done(CURL *easy, CURLcode result, void *userdata)
{
    (void)userdata;
    http_gets_done(easy, result);
}

static int attach(void)
{
    static struct fdmux_curl *curl; /* until the program ends */
    int r = fdmux_loop_create(NULL, &loop);

    return r < 0 ? r : fdmux_curl_attach(loop, http_gets.multi, on_done, NULL, &curl);
}

static int run(void)
{
    return fdmux_loop_run(loop);
}

static void stop(void)
{
    (void)fdmux_loop_stop(loop); /* fails for a closed loop, and this one runs */
}

int main(int argc, char **argv)
{
    return gets_main(argc, argv, &(struct gets_peer){attach, run, stop, 0});
}
