/* multipart/form-data, fed in pieces of every size. */
#include "gateway/multipart.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct seen {
    qd_buf text; /* "<name|filename:content>" */
    bool refuse;
} seen;

static bool on_begin(void *ctx, const char *name, const char *filename)
{
    seen *s = ctx;
    qd_buf_printf(&s->text, "<%s|%s:", name, filename != NULL ? filename : "-");
    return !s->refuse;
}

static bool on_data(void *ctx, const char *data, size_t n)
{
    assert_true(n > 0);
    qd_buf_add(&((seen *)ctx)->text, data, n);
    return true;
}

static bool on_end(void *ctx)
{
    qd_buf_str(&((seen *)ctx)->text, ">");
    return true;
}

static const qd_multipart_ops k_ops = {on_begin, on_data, on_end};

/* True: good and whole. */
static bool parse(const char *type, const char *body, size_t n, size_t step, seen *s)
{
    qd_multipart m;
    bool ok = qd_multipart_begin(&m, type, &k_ops, s);
    for (size_t i = 0; i < n && ok; i += step) ok = qd_multipart_feed(&m, body + i, n - i < step ? n - i : step);
    return ok && qd_multipart_over(&m);
}

static const char k_type[] = "multipart/form-data; boundary=xyz";

static void expect(const char *body, size_t n, const char *want, size_t want_n)
{
    for (size_t step = 1; step <= n; step = step < 9 ? step + 1 : step * 2) {
        seen s = {0};
        assert_true(parse(k_type, body, n, step, &s));
        assert_int_equal(s.text.len, want_n);
        assert_memory_equal(s.text.data, want, want_n);
        qd_buf_done(&s.text);
    }
}
#define EXPECT(body, want) expect(body, sizeof(body) - 1, want, sizeof(want) - 1)

static void parts_are_told_whole_whatever_the_pieces(void **state)
{
    (void)state;
    EXPECT("--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--xyz\r\n"
           "content-type: x/y\r\nCONTENT-DISPOSITION: form-data; filename=\"f.txt\"; "
           "name=b\r\n\r\n\r\n--xyz--\r\nepilogue",
           "<a|-:one><b|f.txt:>");
    EXPECT("--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n--xyz\r\n--xyz--", "<a|-:--xyz>");
    EXPECT("--xyz--", "");
}

static void what_only_looks_like_a_boundary_is_content(void **state)
{
    (void)state;
    EXPECT("--xyz\r\nContent-Disposition: form-data; "
           "name=a\r\n\r\n\r\r\n\r\n-\r\n--\r\n--x\r\n--xy\r\r\n--xyZ\0\n\r\n--xyz--",
           "<a|-:\r\r\n\r\n-\r\n--\r\n--x\r\n--xy\r\r\n--xyZ\0\n>");
}

static void names_are_unescaped(void **state)
{
    (void)state;
    EXPECT("--xyz\r\nContent-Disposition: form-data; name=\"a\\\"b\\\\c\"; filename=\"\"\r\n\r\n\r\n--xyz--",
           "<a\"b\\c|:>");
    EXPECT("--xyz\r\nContent-Disposition: form-data; name=a; filename=\"plain\"; filename*=utf-8''%e4%bd%a0\r\n\r\n\r\n"
           "--xyz--",
           "<a|\xe4\xbd\xa0:>");
}

static void refuse(const char *body)
{
    for (size_t step = 1; step < 100; step *= 3) {
        seen s = {0};
        if (parse(k_type, body, strlen(body), step, &s)) fail_msg("taken: %s", body);
        qd_buf_done(&s.text);
    }
}

static void broken_bodies_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "hello",
        "--xy",
        "--xyz",
        "--xyz\r\n",
        "--xyz-x",
        "--xyzz\r\n",
        "x--xyz--",
        "\r\n--xyz--",
        "--xyz\n",
        "--xyz\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\nabc",
        "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\nabc\r\n--xyz",
        "--xyz\r\nContent-Disposition: form-data\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=\"a\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a b\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a; filename*=latin1''x\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a; filename*=UTF-8''%ff\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a; filename*=UTF-8''%00\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a; filename=b; filename=c\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n\r\n--xyz--",
        "--xyz\r\nContent-Disposition: attachment; name=a\r\n\r\n\r\n--xyz--",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refuse(bad[i]);
}

static void heads_and_names_have_their_limits(void **state)
{
    (void)state;
    char body[QD_MULTIPART_HEAD_MAX + 600], name[QD_MULTIPART_NAME_BYTES + 1];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)snprintf(body, sizeof body, "--xyz\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n\r\n--xyz--", name);
    refuse(body);
    name[sizeof name - 2] = '\0';
    (void)snprintf(body, sizeof body, "--xyz\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n\r\n--xyz--", name);
    seen s = {0};
    assert_true(parse(k_type, body, strlen(body), 7, &s));
    qd_buf_done(&s.text);
    memset(body, 'a', sizeof body);
    memcpy(body, "--xyz\r\n", 7);
    body[sizeof body - 1] = '\0';
    refuse(body);
}

static void an_op_that_says_no_ends_it(void **state)
{
    (void)state;
    static const char body[] = "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--xyz--";
    seen s = {.refuse = true};
    assert_false(parse(k_type, body, sizeof body - 1, 4, &s));
    qd_buf_done(&s.text);
}

static void only_forms_with_a_boundary_are_taken(void **state)
{
    (void)state;
    static const char *const bad[] = {"multipart/form-data",
                                      "multipart/form-data;",
                                      "multipart/form-data; boundary=",
                                      "multipart/form-data; boundary=\"\"",
                                      "multipart/form-data; boundary=\"a \"",
                                      "multipart/form-data; boundary=a@b",
                                      "multipart/form-data; boundary=a; boundary=b",
                                      "multipart/form-data; x",
                                      "multipart/form-datax; boundary=a",
                                      "text/plain",
                                      ""};
    qd_multipart m;
    seen s = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (qd_multipart_begin(&m, bad[i], &k_ops, &s)) fail_msg("taken: %s", bad[i]);
    assert_false(qd_multipart_begin(&m, NULL, &k_ops, &s));
    assert_true(qd_multipart_begin(&m, "Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", &k_ops, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_told_whole_whatever_the_pieces),
        cmocka_unit_test(what_only_looks_like_a_boundary_is_content),
        cmocka_unit_test(names_are_unescaped),
        cmocka_unit_test(broken_bodies_are_refused),
        cmocka_unit_test(heads_and_names_have_their_limits),
        cmocka_unit_test(an_op_that_says_no_ends_it),
        cmocka_unit_test(only_forms_with_a_boundary_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
