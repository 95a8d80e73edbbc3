/* numerics.h -- the numerics id: what decides the bytes of a calibrated job on this machine besides its input (numerics
 * version, device, the forward pass's library and tiles), as one word for lanes, heartbeats and reports:
 * "cpu-1-<16 hexadecimal digits>". The same text is part of a calibrated plan's hash (engine/tokens.c). */
#ifndef QD_ENGINE_NUMERICS_H
#define QD_ENGINE_NUMERICS_H

enum {
    QD_NUMERICS_ID_BYTES = 64
};

void qd_numerics_id(char ret[QD_NUMERICS_ID_BYTES]);

#endif
