/* Processors of NUMA nodes, as a directory in place of /sys tells them. */
#include "base/file.h"
#include "base/numa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char g_sys[64];

static void put(const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", g_sys, name);
    for (char *slash = path + strlen(g_sys) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        (void)mkdir(path, 0755);
    }
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(g_sys, sizeof g_sys, "/tmp/qd-sys-XXXXXX");
    return mkdtemp(g_sys) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return qd_tree_remove(g_sys, NULL) == QD_OK ? 0 : -1;
}

static void lists_of_processors_are_read(void **state)
{
    (void)state;
    cpu_set_t set;
    assert_true(qd_cpu_list("0-3,8,10-10", &set));
    assert_int_equal(CPU_COUNT(&set), 6);
    assert_true(CPU_ISSET(0, &set) && CPU_ISSET(3, &set) && CPU_ISSET(8, &set) && CPU_ISSET(10, &set));
    assert_false(CPU_ISSET(4, &set) || CPU_ISSET(9, &set));
    assert_true(qd_cpu_list("", &set)); /* a node of memory alone */
    assert_int_equal(CPU_COUNT(&set), 0);
    assert_true(qd_cpu_list("1022-4000000000,5", &set));
    assert_int_equal(CPU_COUNT(&set), 3);
}

static void other_texts_are_no_lists(void **state)
{
    (void)state;
    static const char *const wrong[] = {"x",   "-1", "1-",   "3-1", "1--2", "1, 2",  " 1",
                                        "1;2", ",",  "1,,2", "+1",  "0x10", "1-2-3", "99999999999999999999999"};
    cpu_set_t set;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (qd_cpu_list(wrong[i], &set)) fail_msg("\"%s\" was taken", wrong[i]);
        assert_int_equal(CPU_COUNT(&set), 0);
    }
}

static void nodes_are_those_that_the_machine_tells(void **state)
{
    (void)state;
    cpu_set_t set;
    put("devices/system/node/node0/cpulist", "0-1\n");
    put("devices/system/node/node3/cpulist", "2,4\n");
    put("devices/system/node/node4/cpulist", "\n");
    put("devices/system/node/node5/cpulist", "none\n");
    assert_true(qd_numa_cpus(g_sys, 0, &set));
    assert_int_equal(CPU_COUNT(&set), 2);
    assert_true(qd_numa_cpus(g_sys, 3, &set));
    assert_true(CPU_ISSET(2, &set) && CPU_ISSET(4, &set) && CPU_COUNT(&set) == 2);
    assert_true(qd_numa_cpus(g_sys, 4, &set));
    assert_int_equal(CPU_COUNT(&set), 0);
    for (unsigned none = 1; none < 8; none += none == 1 ? 4 : 1) /* 1, 5, 6, 7 */
        assert_false(qd_numa_cpus(g_sys, none, &set));
}

static void a_line_of_the_kernels_is_whole_or_none(void **state)
{
    (void)state;
    char path[128], line[8];
    put("short", "abc\nmore\n");
    put("fits", "abcdef\n");
    put("open", "abcdef"); /* no end, but room for one */
    put("long", "abcdefgh\n");
    put("empty", "");
    static const struct {
        const char *name, *want; /* NULL: none */
    } list[] = {{"short", "abc"}, {"fits", "abcdef"}, {"open", "abcdef"},
                {"long", NULL},   {"empty", NULL},    {"no", NULL}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", g_sys, list[i].name);
        assert_int_equal(qd_kernel_line(path, line, sizeof line), list[i].want != NULL);
        assert_string_equal(line, list[i].want != NULL ? list[i].want : "");
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(lists_of_processors_are_read),
        TEST(other_texts_are_no_lists),
        TEST(nodes_are_those_that_the_machine_tells),
        TEST(a_line_of_the_kernels_is_whole_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
