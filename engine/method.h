/* method.h -- how a job quantizes, from its template's settings: what that needs, and what it must come to. */
#ifndef QD_ENGINE_METHOD_H
#define QD_ENGINE_METHOD_H

#include "engine/job.h"
#include "quant/nvfp4.h"
#include "quant/stats.h"

typedef struct qd_method {
    qd_nvfp4_recipe recipe;
    qd_input_rule input_rule;
    bool gptq;             /* errors of a column made up for by the next ones; needs the Hessian of each input */
    bool hessian_scale;    /* block scales by the error weighted with the second moments of inputs */
    bool balance;          /* scales between channels folded into norms and the linears before */
    float damp;            /* GPTQ: of the mean diagonal element */
    uint32_t refine;       /* GPTQ: sweeps of refinement */
    float correction;      /* GPTQ: part of the output correction that is taken, 0 .. 1 */
    uint32_t gate_samples; /* held back; 0: no quality gate */
    double max_kl;         /* 0: the gate only tells */
    bool layerwise;        /* quantized layer by layer in a calibration pass (engine/layerwise.h) */
    bool calibrated;       /* needs calibration tokens */
} qd_method;

/* Errors: QD_E_USAGE (settings that do not go together), QD_E_UNSUPPORTED (a method that this version lacks). */
QD_MUST_CHECK qd_code qd_method_of(const qd_job_opts *opts, qd_method *ret, qd_err *err);

#endif
