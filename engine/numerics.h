/* numerics.h -- the numerics id: what decides the bytes of a calibrated job on this machine besides its input (numerics
 * version, device, the forward pass's library and tiles), as one word for lanes, heartbeats and reports:
 * "cpu-1-<16 hexadecimal digits>", or "cuda-.." for a GPU. The same text is part of a calibrated plan's hash
 * (engine/tokens.c). */
#ifndef QD_ENGINE_NUMERICS_H
#define QD_ENGINE_NUMERICS_H

typedef struct qd_ops qd_ops; /* gpu/ops.h, whose lane has the name of one of queues */

enum {
    QD_NUMERICS_ID_BYTES = 64
};

/* ops: the device of forward passes; NULL: this processor. */
void qd_numerics_id(const qd_ops *ops, char ret[QD_NUMERICS_ID_BYTES]);

#endif
