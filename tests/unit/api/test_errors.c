/* test_errors.c -- every error of both APIs is provoked by a request; with the argument FILE.md: the tables there are
 * those that this program prints with --table. */
#include "base/file.h"
#include "base/mem.h"
#include "gateway/compress.h"
#include "tests/unit/api/error_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct api_table {
    const char *name, *id_member;
    const qd_api *api;
    const error_case *cases;
    size_t n, n_rows;
    const qd_error_row *(*row)(int e);
} api_table;

static const qd_error_row *bailian_row(int e)
{
    return qd_bailian_error_row((qd_bailian_error)e);
}

static const qd_error_row *qianfan_row(int e)
{
    return qd_qianfan_error_row((qd_qianfan_error)e);
}

static api_table table_of(bool qianfan)
{
    api_table t = {.name = qianfan ? "qianfan" : "bailian",
                   .api = qianfan ? qd_api_qianfan() : qd_api_bailian(),
                   .n_rows = qianfan ? (size_t)QD_QIANFAN_ERROR_COUNT : (size_t)QD_BAILIAN_ERROR_COUNT,
                   .row = qianfan ? qianfan_row : bailian_row};
    t.cases = qianfan ? qianfan_cases(&t.n) : bailian_cases(&t.n);
    return t;
}

/* $name becomes the id of the model of that name, $set that of demo-ft-1's set. */
static char *with_ids(const fake *f, const char *text)
{
    qd_buf b = {0};
    for (const char *s = text; *s != '\0';) {
        size_t n = strcspn(s, "$");
        qd_buf_add(&b, s, n);
        s += n;
        if (*s == '\0') break;
        n = strspn(++s, "abcdefghijklmnopqrstuvwxyz0123456789-");
        for (size_t i = 0; i < f->n_models; i++)
            if (strlen(f->models[i].id) == n && memcmp(f->models[i].id, s, n) == 0)
                qd_buf_str(&b, f->models[i].qianfan_id);
        if (n == 3 && memcmp(s, "set", 3) == 0) qd_buf_str(&b, f->models[0].qianfan_set_id);
        s += n;
    }
    assert_false(b.failed);
    return b.data;
}

static answer parsed(qd_http_reply *reply)
{
    answer a = {.status = reply->status, .reply = *reply};
    a.body = json_loadb(reply->body.data, reply->body.len, 0, NULL);
    assert_non_null(a.body);
    return a;
}

/* What the server meets before or beside an API's serve(). */
static answer by_the_server(fake *f, const error_case *c, const qd_api *api, const char *lang)
{
    const qd_http_pair headers[] = {{"Accept-Language", lang}};
    qd_http_request r = {.method = "POST",
                         .path = c->ask.target,
                         .headers = headers,
                         .n_headers = 1,
                         .request_id = RIG_REQUEST_ID,
                         .from = "",
                         .body = ""};
    qd_http_reply reply = {0};
    qd_caller caller = {0};
    qd_uploaded file = {.name = "a.jsonl", .err = {.code = c->fail_code}};
    if (c->refusal != 0)
        api->refuse(&r, (qd_refusal)(c->refusal - 1), &reply);
    else
        api->uploaded(&f->env, &caller, &r, &file, c->upload == 2 ? 1 : 0, &reply);
    return parsed(&reply);
}

static answer provoke(fake *f, const error_case *c, const qd_api *api, const char *lang)
{
    char longer[2048];
    char *body = c->ask.body == NULL ? NULL : with_ids(f, c->ask.body);
    ask a = c->ask;
    if (c->refusal != 0 || c->upload != 0) {
        qd_free(body);
        return by_the_server(f, c, api, lang);
    }
    a.body = body;
    a.lang = lang;
    if (api == qd_api_bailian() && c->row == QD_BAILIAN_SETTING_TEXT) {
        (void)snprintf(longer, sizeof longer,
                       "{\"model\":\"qwen-ft\",\"template_id\":\"types\",\"hyper_parameters\":{\"text\":\"%01100d\"}}",
                       1);
        a.body = longer;
    }
    if (a.repeat_key != NULL && strcmp(a.repeat_key, "used") == 0)
        (void)snprintf(f->jobs[0].repeat_key, sizeof f->jobs[0].repeat_key, "used");
    bool none = c->fail_op != NULL && strcmp(c->fail_op, "-templates") == 0;
    if (none) /* all but the first leave, for a while */
        f->templates[0].id = "gone", f->templates[1].id = "gone";
    f->fail_op = c->fail_op;
    f->fail_code = c->fail_code;
    answer got = ask_of(f, &a);
    qd_free(body);
    return got;
}

static void check_case(const api_table *t, const error_case *c, bool english)
{
    fake *f = fake_new();
    const qd_error_row *row = t->row(c->row);
    answer a = provoke(f, c, t->api, english ? "en-US" : "zh-CN");
    bool part = row->status == 200;
    qd_buf text = {0};
    char *args[QD_FILL_ARGS_MAX] = {NULL};
    for (size_t i = 0; i < QD_FILL_ARGS_MAX; i++)
        if (c->args[i] != NULL) args[i] = with_ids(f, c->args[i]);
    qd_fill(&text, t->api == qd_api_bailian() && !english ? row->text.zh : row->text.en,
            (const char *const[]){args[0], args[1], args[2]});
    if (a.status != row->status)
        fail_msg("%s: expected %d, found %d %s", c->what, row->status, a.status, a.reply.body.data);
    assert_string_equal(text_at(&a, part ? "data.failed_uploads.0.code" : "code"), row->code);
    assert_string_equal(text_at(&a, part ? "data.failed_uploads.0.message" : "message"), text.data);
    assert_int_equal(json_object_size(a.body), part ? 2 : 3);
    assert_null(at(a.body, "error_code"));
    for (size_t i = 0; i < QD_FILL_ARGS_MAX; i++) qd_free(args[i]);
    qd_buf_done(&text);
    answer_done(&a);
    f->fail_op = NULL;
    fake_free(f);
}

static void check_all(bool qianfan)
{
    api_table t = table_of(qianfan);
    bool seen[QD_BAILIAN_ERROR_COUNT + QD_QIANFAN_ERROR_COUNT] = {false};
    for (size_t i = 0; i < t.n; i++) {
        check_case(&t, &t.cases[i], true);
        check_case(&t, &t.cases[i], false);
        seen[t.cases[i].row] = true;
    }
    for (size_t e = 0; e < t.n_rows; e++)
        if (!seen[e]) fail_msg("%s: no request provokes row %zu: %s", t.name, e, t.row((int)e)->text.en);
}

static void every_error_of_bailian_is_answered_in_both_languages(void **state)
{
    (void)state;
    check_all(false);
}

static void every_error_of_qianfan_is_answered(void **state)
{
    (void)state;
    check_all(true);
}

static void the_sdk_finds_its_hints_in_the_headers(void **state)
{
    (void)state;
    fake *f = fake_new();
    answer a = ask_of(f, &(ask){.target = "DescribeModelCompTasks", .key = "nobody"});
    assert_string_equal(a.reply.headers[0].name, "X-Bce-Request-Id");
    assert_string_equal(a.reply.headers[0].value, RIG_REQUEST_ID);
    assert_string_equal(a.reply.headers[1].name, "X-Bce-Error-Code");
    assert_string_equal(a.reply.headers[1].value, "InvalidAccessKeyId");
    assert_string_equal(a.reply.headers[2].name, "X-Bce-Error-Message");
    assert_string_equal(a.reply.headers[2].value, "NotFound, cause: Could not find credential.");
    answer_done(&a);
    fake_free(f);
}

/* One cell of a Markdown table. */
static void cell(qd_buf *b, const char *text, bool code)
{
    qd_buf_str(b, code ? "`" : "");
    for (const char *s = text; *s != '\0'; s++) {
        size_t same = strspn(s, (const char[]){*s, '\0'});
        if (*s == 'a' && same >= 20) { /* the long texts */
            qd_buf_printf(b, "aaa…");
            s += same - 1;
        } else if (*s == '|') {
            qd_buf_str(b, "\\|");
        } else {
            qd_buf_add(b, s, 1);
        }
    }
    qd_buf_str(b, code ? "` | " : " | ");
}

static void print_table(bool qianfan, qd_buf *b)
{
    api_table t = table_of(qianfan);
    qd_buf_str(b, "| when | HTTP | code | message | request |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < t.n; i++) {
        const error_case *c = &t.cases[i];
        const qd_error_row *row = t.row(c->row);
        qd_buf text = {0}, request = {0};
        qd_fill(&text, row->text.en, c->args);
        ask_show(&c->ask, &request);
        qd_buf_str(b, "| ");
        cell(b, c->what, false);
        qd_buf_printf(b, "%d | `%s` | ", row->status, row->code);
        cell(b, text.data, false);
        cell(b, c->how != NULL ? c->how : request.data, c->how == NULL);
        b->len--; /* the last space */
        qd_buf_str(b, "\n");
        qd_buf_done(&text);
        qd_buf_done(&request);
    }
}

static void print_both(qd_buf *b)
{
    for (int q = 0; q < 2; q++) {
        qd_buf_printf(b, "<!-- errors: %s -->\n", table_of(q != 0).name);
        print_table(q != 0, b);
        qd_buf_str(b, "<!-- end -->\n");
    }
}

/* 0: each table that this program prints is in the file. */
static int check_file(const char *path)
{
    char *text = NULL;
    size_t len = 0;
    int missing = 0;
    if (qd_file_read(path, 1 << 20, &text, &len, NULL) != QD_OK) return 2;
    for (int q = 0; q < 2; q++) {
        qd_buf b = {0};
        qd_buf_printf(&b, "<!-- errors: %s -->\n", table_of(q != 0).name);
        print_table(q != 0, &b);
        qd_buf_str(&b, "<!-- end -->\n");
        if (strstr(text, b.data) == NULL) {
            missing++;
            (void)fprintf(stderr, "%s: the table of %s is not the test's: `test_api_errors --table` prints it\n", path,
                          table_of(q != 0).name);
        }
        qd_buf_done(&b);
    }
    qd_free(text);
    return missing;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_of_bailian_is_answered_in_both_languages),
        cmocka_unit_test(every_error_of_qianfan_is_answered),
        cmocka_unit_test(the_sdk_finds_its_hints_in_the_headers),
    };
    if (argc == 2 && strcmp(argv[1], "--table") == 0) {
        qd_buf b = {0};
        print_both(&b);
        (void)fputs(b.data, stdout);
        qd_buf_done(&b);
        return 0;
    }
    if (argc == 2) return check_file(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
