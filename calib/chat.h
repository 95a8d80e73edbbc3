/* chat.h -- messages to text in a model's chat format: ChatML, Qwen3, Llama 3 or Mistral, recognized from the Jinja
 * text of its chat template. No Jinja is run: what the formats share is written here, and the marks that vary between
 * their versions are looked up in the text. */
#ifndef QD_CALIB_CHAT_H
#define QD_CALIB_CHAT_H

#include "base/buf.h"
#include "base/json.h"

typedef enum qd_chat_kind {
    QD_CHAT_PLAIN,   /* no template, or none that we know: contents one after the other */
    QD_CHAT_CHATML,  /* <|im_start|>role\n..<|im_end|>\n */
    QD_CHAT_QWEN3,   /* the same; thinking is kept after the last question only */
    QD_CHAT_LLAMA3,  /* <|start_header_id|>role<|end_header_id|>\n\n..<|eot_id|> */
    QD_CHAT_MISTRAL, /* [INST] .. [/INST] */
    QD_CHAT_KIND_COUNT
} qd_chat_kind;

typedef struct qd_chat { /* zero-initialized: plain; not changed by rendering, so any number of threads may */
    qd_chat_kind kind;
    bool unknown;                   /* there is a template, but we do not know it: worth a warning */
    bool tool_marks;                /* ChatML: tools are spoken to in <tool_call> and <tool_response> */
    bool dated;                     /* Llama 3.1: the system message names dates */
    bool system_marks;              /* Mistral: [SYSTEM_PROMPT] */
    bool answer_space;              /* Mistral: a space before answers */
    const char *open, *close;       /* Mistral: around a question; static */
    char *system;                   /* ChatML: said where the messages have no system message; owned, or NULL */
    char *tools_open, *tools_close; /* ChatML: the template's sentences around a list of tools; owned, or NULL */
    char *bos, *eos;                /* spelled; owned, or NULL */
} qd_chat;

/* From model_dir/chat_template.jinja, else "chat_template" of tokenizer_config.json; neither there: plain.
 * Errors: QD_E_INPUT (damaged or too large), QD_E_NO_MEMORY. Release with qd_chat_done(). */
QD_MUST_CHECK qd_code qd_chat_load(const char *model_dir, qd_chat *ret, qd_err *err);
/* From the template's text; bos and eos may be NULL. */
QD_MUST_CHECK qd_code qd_chat_recognize(const char *jinja, const char *bos, const char *eos, qd_chat *ret, qd_err *err);
void qd_chat_done(qd_chat *c);
const char *qd_chat_name(qd_chat_kind kind); /* "chatml" */

/* Appends the text of messages, an array of {"role", "content"}; content is a string, an array of {"text"} (images and
 * videos are left out), or null beside "tool_calls". No prompt for a next answer. tools: an array, or NULL.
 * The text holds the template's own <s> where it has one: encode it without special tokens.
 * Errors: QD_E_INPUT with the place ("messages[2]: unknown role "x""), QD_E_NO_MEMORY; *out then holds a part. */
QD_MUST_CHECK qd_code qd_chat_render(const qd_chat *c, const json_t *messages, const json_t *tools, qd_buf *out,
                                     qd_err *err);

#endif
