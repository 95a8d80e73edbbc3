"""Operators, accounts and users of nats-server as JSON Web Tokens, signed with nkeys (Ed25519, RFC 8032, in plain Python)."""
import base64
import binascii
import hashlib
import json
import os
import time

P = 2 ** 255 - 19
L = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)
OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


def _x_of(y):
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * I % P
    return x if x % 2 == 0 else P - x


_BY = 4 * pow(5, P - 2, P) % P
_BX = _x_of(_BY)
BASE = (_BX, _BY, 1, _BX * _BY % P)


def _add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _mul(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = _add(q, p)
        p, n = _add(p, p), n >> 1
    return q


def _pack(p):
    z = pow(p[2], P - 2, P)
    x, y = p[0] * z % P, p[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _int(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def _text(data):
    data += binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data).decode().rstrip("=")


def _b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    def __init__(self, kind, raw=None):
        raw = raw or os.urandom(32)
        h = hashlib.sha512(raw).digest()
        self.a = int.from_bytes(h[:32], "little") & (2 ** 254 - 8) | 2 ** 254
        self.prefix, self.bytes = h[32:], _pack(_mul(self.a, BASE))
        self.public = _text(bytes([kind]) + self.bytes)
        self.seed = _text(bytes([SEED | kind >> 5, (kind & 31) << 3]) + raw)

    def sign(self, message):
        r = _int(self.prefix, message) % L
        big_r = _pack(_mul(r, BASE))
        return big_r + ((r + _int(big_r, self.bytes, message) * self.a) % L).to_bytes(32, "little")


def token(issuer, subject, name, nats, **more):
    claims = {"jti": binascii.hexlify(os.urandom(16)).decode(), "iat": int(time.time()), "iss": issuer.public, "name": name,
              "sub": subject.public, "nats": nats | {"version": 2}, **more}
    text = ".".join(_b64(json.dumps(o).encode()) for o in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims))
    return text + "." + _b64(issuer.sign(text.encode()))


class Operator:
    """An operator with a system account and one account that may use JetStream."""

    def __init__(self):
        self.key, self.account, self.system = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT)

    def account_token(self, key, name, **limits):
        free = {k: -1 for k in ("subs", "data", "payload", "imports", "exports", "conn", "leaf")}
        return token(self.key, key, name, {"type": "account", "limits": free | {"wildcards": True} | limits})

    def conf(self):
        """What a nats-server's configuration needs besides JetStream."""
        stored = {k: -1 for k in ("mem_storage", "disk_storage", "streams", "consumer")}
        return (f'operator: "{token(self.key, self.key, "o", {"type": "operator", "system_account": self.system.public})}"\n'
                f'system_account: "{self.system.public}"\nresolver: MEMORY\nresolver_preload: {{\n'
                f'  "{self.system.public}": "{self.account_token(self.system, "SYS")}"\n'
                f'  "{self.account.public}": "{self.account_token(self.account, "quantd", **stored)}"\n}}\n')

    def credentials(self, path, name, nats=None, **more):
        """Writes a user's credentials file, which only its owner may read."""
        user = Key(USER)
        free = {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
        jwt = token(self.account, user, name, free | (nats or {}), **more)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write(f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
                    f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n")
        return path
