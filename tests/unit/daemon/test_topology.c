/* Where a worker is, from settings and a directory in place of /sys. */
#include "daemon/topology.h"

#include "base/file.h"
#include "tests/unit/daemon/fake_sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static char g_sys[64];
static cpu_set_t g_all; /* 0..7 */

static int setup(void **state)
{
    (void)state;
    (void)snprintf(g_sys, sizeof g_sys, "/tmp/qd-sys-XXXXXX");
    CPU_ZERO(&g_all);
    for (size_t i = 0; i < 8; i++) CPU_SET(i, &g_all);
    return mkdtemp(g_sys) != NULL && fake_sys(g_sys, "0-3\n", "4-7\n") ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return qd_tree_remove(g_sys, NULL) == QD_OK ? 0 : -1;
}

static qd_topology make(const char *prefix, const char *host, const char *pci, const cpu_set_t *allowed)
{
    qd_topology t;
    qd_topology_make(g_sys, prefix, host, pci, allowed, &t);
    return t;
}

static void are(const qd_topology *t, const char *const *want, uint32_t n)
{
    for (uint32_t i = 0; i < t->n && i < n; i++) assert_string_equal(t->place[i], want[i]);
    assert_int_equal(t->n, n);
}

/* As jobs/gang_pick.c counts. */
static unsigned shared(const qd_topology *a, const qd_topology *b)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++) n += strcmp(a->place[i], b->place[k]) == 0;
    return n;
}

static void a_gpus_places_go_from_the_rack_to_the_bridge_above_it(void **state)
{
    (void)state;
    static const char *const want[] = {"rack3",
                                       "rack3/sw1",
                                       "rack3/sw1/node7",
                                       "rack3/sw1/node7/numa1",
                                       "rack3/sw1/node7/numa1/pci0000:40",
                                       "rack3/sw1/node7/numa1/pci0000:40/0000:40:01.0",
                                       "rack3/sw1/node7/numa1/pci0000:40/0000:40:01.0/0000:41:00.0",
                                       "rack3/sw1/node7/numa1/pci0000:40/0000:40:01.0/0000:41:00.0/0000:42:08.0"};
    qd_topology t = make("rack3/sw1", "node7", "00000000:4B:00.0", &g_all); /* as NVML writes it */
    are(&t, want, 8);
    t = make("rack3/sw1", "node7", "", &g_all); /* not known yet */
    are(&t, want, 3);
    t = make("rack3/sw1", "node7", "00000000:99:00.0", &g_all); /* not on this machine */
    are(&t, want, 3);
    t = make("rack3/sw1", "node7", "gpu0", &g_all);
    are(&t, want, 3);
}

static void a_gpu_without_a_node_has_its_bridges(void **state)
{
    (void)state;
    static const char *const want[] = {"n1", "n1/pci0000:80", "n1/pci0000:80/0000:80:01.0"};
    qd_topology t = make("", "n1", "00000000:81:00.0", &g_all);
    are(&t, want, 3);
}

static void processors_are_of_the_nodes_that_may_be_used(void **state)
{
    (void)state;
    static const char *const both[] = {"n1", "n1/numa0", "n1/numa1"}, *const second[] = {"n1", "n1/numa1"};
    cpu_set_t few;
    qd_topology t = make("", "n1", NULL, &g_all);
    are(&t, both, 3);
    CPU_ZERO(&few);
    CPU_SET(6, &few);
    t = make("", "n1", NULL, &few);
    are(&t, second, 2);
    qd_topology_make("/nowhere", "", "n1", NULL, &g_all, &t);
    are(&t, both, 1);
}

static void the_nearer_two_are_the_more_places_they_share(void **state)
{
    (void)state;
    const qd_topology a = make("r1/s1", "n1", "00000000:43:00.0", &g_all);
    const qd_topology same_switch = make("r1/s1", "n1", "00000000:4b:00.0", &g_all);
    const qd_topology same_host = make("r1/s1", "n1", "00000000:81:00.0", &g_all);
    const qd_topology twin = make("r1/s1", "n2", "00000000:43:00.0", &g_all); /* the same slot of another host */
    const qd_topology same_rack = make("r1/s2", "n3", "00000000:43:00.0", &g_all);
    const qd_topology elsewhere = make("r2/s1", "n1", "00000000:43:00.0", &g_all);
    assert_int_equal(shared(&a, &a), 8);
    assert_int_equal(shared(&a, &same_switch), 7);
    assert_int_equal(shared(&a, &same_host), 3);
    assert_int_equal(shared(&a, &twin), 2);
    assert_int_equal(shared(&a, &same_rack), 1);
    assert_int_equal(shared(&a, &elsewhere), 0);
}

static void what_is_too_long_or_too_deep_is_left_out(void **state)
{
    (void)state;
    char host[200], bridges[200] = "pci0000:c0";
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    qd_topology t = make("r1", host, NULL, &g_all);
    assert_int_equal(t.n, 1);
    host[64] = '\0';
    t = make("0123456789012345678901234567890123456789012345678901234567890/2", host, NULL, &g_all);
    assert_int_equal(t.n, 3); /* a host's name fits behind the longest prefix, and nothing else */
    assert_int_equal(strlen(t.place[2]), QD_PLACE_BYTES - 1);
    for (int i = 0; i < 12; i++) strcat(bridges, "/0000:c1:00.0");
    assert_true(fake_sys_gpu(g_sys, bridges, "0000:c2:00.0", "0\n"));
    t = make("", "n1", "00000000:c2:00.0", &g_all);
    assert_true(t.n > 5 && t.n <= QD_PLACES_MAX);
    assert_true(strlen(t.place[t.n - 1]) < QD_PLACE_BYTES);
}

static void bytes_that_a_heartbeat_must_not_have_are_replaced(void **state)
{
    (void)state;
    qd_topology t = make("", "a b/\xc3\xa4\n", NULL, &g_all);
    assert_string_equal(t.place[0], "a_b____");
    assert_string_equal(t.place[1], "a_b____/numa0");
}

static void the_setting_is_names_between_slashes(void **state)
{
    (void)state;
    static const char *const right[] = {"", "r", "rack3/sw1", "a/b/c/d/e/f", "dc-1.eu_west:2"};
    static const char *const wrong[] = {"/",     "/r",
                                        "r/",    "r//s",
                                        "a b",   "a/b/c/d/e/f/g",
                                        "r\xc3", "rack3 /sw1",
                                        "\"r\"", "0123456789012345678901234567890123456789012345678901234567890123"};
    qd_err e;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        assert_int_equal(qd_topology_check(right[i], NULL), QD_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (qd_topology_check(wrong[i], &e) != QD_E_CONFIG) fail_msg("\"%s\" was taken", wrong[i]);
        assert_non_null(strstr(e.msg, "topology: expected"));
    }
}

static void a_job_is_pinned_to_the_processors_of_a_node(void **state)
{
    (void)state;
    cpu_set_t cpus, few;
    assert_int_equal(qd_pin_cpus(g_sys, "none", "00000000:43:00.0", &g_all, &cpus, NULL), QD_OK);
    assert_true(CPU_EQUAL(&cpus, &g_all));
    assert_int_equal(qd_pin_cpus(g_sys, "numa", "00000000:43:00.0", &g_all, &cpus, NULL), QD_OK);
    assert_true(CPU_COUNT(&cpus) == 4 && CPU_ISSET(4, &cpus));
    assert_int_equal(qd_pin_cpus(g_sys, "numa0", "", &g_all, &cpus, NULL), QD_OK);
    assert_true(CPU_COUNT(&cpus) == 4 && CPU_ISSET(0, &cpus));
    CPU_ZERO(&few); /* the service has two of them: never more than those */
    CPU_SET(3, &few);
    CPU_SET(4, &few);
    assert_int_equal(qd_pin_cpus(g_sys, "numa0", "", &few, &cpus, NULL), QD_OK);
    assert_true(CPU_COUNT(&cpus) == 1 && CPU_ISSET(3, &cpus));
}

static void what_cannot_be_pinned_keeps_all_and_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *pin, *pci, *why;
    } list[] = {{"numa", "00000000:81:00.0", "does not tell the device's NUMA node"},
                {"numa", "", "does not tell the device's NUMA node"},
                {"numa7", "", "has no NUMA node 7"},
                {"numa1", "", "may use no processor of NUMA node 1"}};
    cpu_set_t cpus, few;
    qd_err e;
    CPU_ZERO(&few);
    CPU_SET(0, &few);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        assert_int_equal(qd_pin_cpus(g_sys, list[i].pin, list[i].pci, &few, &cpus, &e), QD_E_UNSUPPORTED);
        assert_non_null(strstr(e.msg, list[i].why));
        assert_true(CPU_EQUAL(&cpus, &few));
    }
}

static void pins_are_checked_at_the_start(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "None", "numa-1", "numa1x", "numa64", "numa 1", "node0", "0-3"};
    qd_err e;
    assert_int_equal(qd_pin_check("none", false, NULL), QD_OK);
    assert_int_equal(qd_pin_check("numa63", false, NULL), QD_OK);
    assert_int_equal(qd_pin_check("numa", true, NULL), QD_OK);
    assert_int_equal(qd_pin_check("numa", false, &e), QD_E_CONFIG); /* near what? */
    assert_non_null(strstr(e.msg, "pin: expected none, numa (a GPU's worker only)"));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (qd_pin_check(wrong[i], true, NULL) != QD_E_CONFIG) fail_msg("\"%s\" was taken", wrong[i]);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_gpus_places_go_from_the_rack_to_the_bridge_above_it),
        TEST(a_gpu_without_a_node_has_its_bridges),
        TEST(processors_are_of_the_nodes_that_may_be_used),
        TEST(the_nearer_two_are_the_more_places_they_share),
        TEST(what_is_too_long_or_too_deep_is_left_out),
        TEST(bytes_that_a_heartbeat_must_not_have_are_replaced),
        TEST(the_setting_is_names_between_slashes),
        TEST(a_job_is_pinned_to_the_processors_of_a_node),
        TEST(what_cannot_be_pinned_keeps_all_and_says_why),
        TEST(pins_are_checked_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
