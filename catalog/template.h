/* template.h -- a compression template: a JSON file that says what is quantized, how, and which settings a user has.
 *
 * Fields (docs/templates.md): id, name {zh,en}, description {zh,en}, base_models [glob...], scheme ("nvfp4"),
 * activations ("none" = W4A16, "nvfp4" = W4A4), scope ("linears" | "mlp" | "experts"), exclude [glob of module
 * names...], mtp ("copy"), hyper_parameters [...]. Unknown keys are refused. */
#ifndef QD_CATALOG_TEMPLATE_H
#define QD_CATALOG_TEMPLATE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"

typedef struct qd_text {
    const char *zh, *en;
} qd_text;

typedef enum qd_param_type {
    QD_PARAM_INT,
    QD_PARAM_NUMBER,
    QD_PARAM_BOOL,
    QD_PARAM_ENUM,
    QD_PARAM_STRING
} qd_param_type;

typedef struct qd_param {
    const char *name;
    qd_text label, description;
    qd_param_type type;
    double min, max, step;      /* INT, NUMBER */
    const char *const *choices; /* ENUM */
    uint32_t n_choices;
    const char *dflt; /* as text, valid by the same rules as a given value */
    bool visible;     /* false: --set takes it, the APIs neither list nor accept it */
} qd_param;

typedef enum qd_scope {
    QD_SCOPE_LINEARS,
    QD_SCOPE_MLP,
    QD_SCOPE_EXPERTS
} qd_scope;

typedef struct qd_template {
    qd_arena arena;
    const char *id;
    qd_text name, description;
    const char *const *base_models;
    uint32_t n_base_models;
    const char *scheme; /* "nvfp4" */
    bool input_scales;  /* activations "nvfp4" */
    qd_scope scope;
    const char *const *exclude; /* globs (fnmatch without special '/') of module names */
    uint32_t n_exclude;
    qd_param *params;
    uint32_t n_params;
} qd_template;

/* Parses and checks one template; *ret zeroed before, qd_template_done() after. Errors: QD_E_CONFIG naming file, key,
 * expected, found. */
QD_MUST_CHECK qd_code qd_template_parse(const char *text, size_t len, const char *what, qd_template *ret, qd_err *err);
/* Finds id among the directories of dirs (":"-separated; file id.json) or, when id has a '/' or ends in ".json", that
 * file. Errors: QD_E_INPUT "unknown template ... (known: a, b, c)". */
QD_MUST_CHECK qd_code qd_template_load(const char *dirs, const char *id, qd_template *ret, qd_err *err);
/* Ids of all templates in dirs, sorted; in arena. Files that do not parse fail the call. */
QD_MUST_CHECK qd_code qd_template_list(const char *dirs, qd_arena *arena, const char ***ret_ids, uint32_t *ret_n,
                                       qd_err *err);
void qd_template_done(qd_template *t);
/* ":"-joined template directories that exist: `given` alone when it is not NULL, else $QD_TEMPLATES, else those this
 * program was built with. NULL when memory is out; qd_free(). */
char *qd_template_dirs(const char *given);

/* Values for a template's parameters: defaults overlaid by NAME=VALUE settings. */
typedef struct qd_values {
    const qd_template *tmpl;
    const char **value; /* [n_params], in the arena given */
} qd_values;
/* Errors: QD_E_INPUT: unknown name (known ones listed), value of the wrong type, out of range, off the step, not a
 * choice. */
QD_MUST_CHECK qd_code qd_values_resolve(const qd_template *t, const char *const *settings, uint32_t n_settings,
                                        qd_arena *arena, qd_values *ret, qd_err *err);
const char *qd_values_get(const qd_values *v, const char *name); /* NULL when the template has no such parameter */
/* True when the template's scope and exclusions take a linear: role as in ckpt/arch.h. */
bool qd_template_takes(const qd_template *t, int role, const char *module);

#endif
