/* test_stream_arguments.c: what is refused: tokens, options, batches and addresses that
 * are none; nothing changes, and descriptors stay the caller's. */
#include "stream_fixtures.h"

#include <unistd.h>

static void expect_unknown(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    struct fdmux_stream_write_op op = {token, "x", 1};

    CHECK_EQ(fdmux_stream_write(loop, token, "x", 1), -ENOENT);
    CHECK_EQ(fdmux_stream_write_batch(loop, &op, 1), 0);
    CHECK_EQ(fdmux_stream_shutdown(loop, token), -ENOENT);
    CHECK_EQ(fdmux_stream_pause(loop, token), -ENOENT);
    CHECK_EQ(fdmux_stream_resume(loop, token), -ENOENT);
    CHECK_EQ(fdmux_stream_close(loop, token, 0), -ENOENT);
    CHECK_EQ(fdmux_stream_fd(loop, token), -ENOENT);
    CHECK_EQ(fdmux_stream_stats(loop, token, &stats), -ENOENT);
}

TEST(tokens_that_are_over_or_forged_name_nothing)
{
    struct desk desk;
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;
    uint64_t again;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    stream = add_stream(&desk, fds[0], &witness);
    expect_unknown(desk.loop, 0);
    expect_unknown(desk.loop, UINT64_MAX);
    expect_unknown(desk.loop, stream + 1);
    expect_unknown(desk.loop, stream ^ UINT64_C(1) << 32);
    expect_unknown(desk.loop, stream ^ UINT64_C(1) << 29); /* another kind */
    expect_unknown(desk.loop, stream | UINT64_C(1) << 63);
    CHECK_EQ(fdmux_stream_close(desk.loop, stream, 0), 0);
    CHECK_EQ(serve(&desk), 0);
    expect_unknown(desk.loop, stream);
    CHECK_EQ(serve(&desk), 0);
    witness.destroyed = 0;
    again = add_stream(&desk, fds[1], &witness);
    CHECK_EQ(again & 0x0fffffff, stream & 0x0fffffff);
    expect_unknown(desk.loop, stream);
    close_desk(&desk);
}

static void expect_bad(struct desk *desk, int fd,
                       const struct fdmux_stream_options *options)
{
    uint64_t stream = 7;

    CHECK_EQ(fdmux_stream_add(desk->loop, fd, options, &stream), -EINVAL);
    CHECK_EQ(fdmux_stream_listen(desk->loop, fd, options, &stream), -EINVAL);
    CHECK_EQ(fdmux_stream_connect(desk->loop, fd, options, &stream), -EINVAL);
    CHECK_EQ(stream, 7);
}

TEST(bad_options_change_nothing)
{
    struct desk desk;
    struct witness witness = {0};
    struct fdmux_stream_options good;
    struct fdmux_stream_options bad[6];
    uint64_t stream = 7;
    int fds[2];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    good = options_for(&desk, &witness);
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].struct_size--;
    bad[1].reserved = 1;
    bad[2].receive_max = ARENA_MIN + 1;
    bad[3].queue_max = UINT32_MAX;
    bad[4].idle_timeout_ns = -1;
    bad[5].stall_timeout_ns = -1;
    for (int i = 0; i < 6; i++)
        expect_bad(&desk, fds[0], &bad[i]);
    expect_bad(&desk, fds[0], NULL);
    CHECK_EQ(fdmux_stream_add(desk.loop, fds[0], &good, NULL), -EINVAL);
    CHECK_EQ(fdmux_stream_add(NULL, fds[0], &good, &stream), -EINVAL);
    CHECK_EQ(fdmux_stream_add(desk.loop, -1, &good, &stream), -EBADF);
    CHECK_EQ(fdmux_stream_add(desk.loop, 999999, &good, &stream), -EBADF);
    CHECK_EQ(stream, 7);
    CHECK_EQ(close(fds[0]) + close(fds[1]), 0); /* still the caller's */
    close_desk(&desk);
    CHECK_EQ(witness.destroyed, 0);
}

TEST(bad_arguments_are_refused)
{
    struct desk desk;
    struct witness witness = {0};
    struct fdmux_stream_write_op ops[2] = {{0, "x", 1}, {0, NULL, 1}};
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats - 1};
    int fds[2];
    uint64_t stream;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    open_sockets(fds);
    stream = add_stream(&desk, fds[0], &witness);
    ops[0].stream = ops[1].stream = stream;
    CHECK_EQ(fdmux_stream_write(desk.loop, stream, NULL, 1), -EINVAL);
    CHECK_EQ(fdmux_stream_write(desk.loop, stream, NULL, 0), 0);
    CHECK_EQ(fdmux_stream_write(NULL, stream, "x", 1), -EINVAL);
    CHECK_EQ(fdmux_stream_write_batch(desk.loop, ops, 2), -EINVAL);
    CHECK_EQ(fdmux_stream_write_batch(desk.loop, NULL, 1), -EINVAL);
    CHECK_EQ(fdmux_stream_write_batch(NULL, ops, 1), -EINVAL);
    CHECK_EQ(fdmux_stream_write_batch(desk.loop, NULL, 0), 0);
    CHECK_EQ(fdmux_stream_close(desk.loop, stream, 2), -EINVAL);
    CHECK_EQ(fdmux_stream_close(NULL, stream, 0), -EINVAL);
    CHECK_EQ(fdmux_stream_stats(desk.loop, stream, &stats), -EINVAL);
    CHECK_EQ(fdmux_stream_stats(desk.loop, stream, NULL), -EINVAL);
    CHECK_EQ(fdmux_stream_total_max(NULL, 1), -EINVAL);
    CHECK(!is_readable(fds[1]));
    CHECK_EQ(serve(&desk), 0);
    CHECK_EQ(witness.destroyed, 0);
    close_desk(&desk);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(bad_batches_are_refused)
{
    struct desk desk;
    struct fdmux_stream_batch bad[6];

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    for (int i = 0; i < 6; i++)
        bad[i] = desk.batch;
    bad[0].struct_size++;
    bad[1].records = NULL;
    bad[2].arena = NULL;
    bad[3].record_capacity = RECORDS_MIN - 1;
    bad[4].arena_size = ARENA_MIN - 1;
    bad[5].record_count = RECORDS_MIN + 1;
    for (int i = 0; i < 6; i++)
        CHECK_EQ(fdmux_stream_collect(desk.loop, &bad[i]), -EINVAL);
    CHECK_EQ(fdmux_stream_collect(NULL, &desk.batch), -EINVAL);
    CHECK_EQ(fdmux_stream_collect(desk.loop, NULL), 0);
    close_desk(&desk);
}

TEST(bad_addresses_are_refused)
{
    static const char long_path[] =
        "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789";
    struct fdmux_stream_address bad[] = {
        {.host = NULL},
        {.host = "127.0.0.1", .path = "/tmp/both"},
        {.host = "localhost"},
        {.host = ""},
        {.path = ""},
        {.path = long_path},
        {.host = "127.0.0.1", .flags = 0x80},
        {.host = "127.0.0.1", .backlog = -1},
        {.host = "127.0.0.1", .reserved = 1},
    };
    struct desk desk;
    struct witness witness = {0};
    struct fdmux_stream_options options;
    uint64_t stream = 7;

    open_desk(&desk, false, RECORDS_MIN, ARENA_MIN);
    options = options_for(&desk, &witness);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i].struct_size = sizeof *bad;
        CHECK_EQ(fdmux_stream_listen_at(desk.loop, &bad[i], &options, &stream),
                 -EINVAL);
        CHECK_EQ(fdmux_stream_connect_to(desk.loop, &bad[i], &options, &stream),
                 -EINVAL);
    }
    CHECK_EQ(fdmux_stream_listen_at(desk.loop, NULL, &options, &stream), -EINVAL);
    bad[0] =
        (struct fdmux_stream_address){.struct_size = sizeof *bad, .host = "192.0.2.1"};
    CHECK_EQ(fdmux_stream_listen_at(desk.loop, bad, &options, &stream), -EADDRNOTAVAIL);
    bad[0].host = "127.0.0.1";
    CHECK_EQ(fdmux_stream_listen_at(desk.loop, bad, NULL, &stream), -EINVAL);
    CHECK_EQ(fdmux_stream_listen_at(desk.loop, bad, &options, NULL), -EINVAL);
    CHECK_EQ(stream, 7);
    close_desk(&desk);
}
