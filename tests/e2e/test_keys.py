#!/usr/bin/env python3
"""quantctl keys and tenants: made, listed, disabled, removed; shown once; each with its entry in the audit trail."""
import os

import cluster


class Keys(cluster.Case):
    def keys(self, *args, rc=0):
        return self.c.ctl("keys", *args, "--json", rc=rc)

    def actions(self):
        return [(e["action"], e["subject"]) for e in self.c.ctl("audit", "--json").events()]

    def test_a_bearer_key_lives_until_it_is_removed(self):
        made = self.keys("add", "--tenant", "acme", "--user", "ann", "--days", "3", "--template", "mlp", "--read-only").events()[0]
        self.assertRegex(made["key"], "^sk-[0-9a-z]{48}$")
        listed = self.keys("list")
        self.assertNotIn(made["key"], listed.out)
        self.assertNotIn(made["key"][19:], listed.out)
        k = listed.events()[0]
        self.assertEqual((k["id"], k["tenant"], k["user"], k["read_only"], k["disabled"], k["signing"], k["templates"]),
                         (made["id"], "acme", "ann", True, False, False, ["mlp"]))
        self.assertEqual(k["expires_ms"] - k["created_ms"], 3 * 24 * 3600 * 1000)
        self.assertEqual(self.keys("list", "--tenant", "other").out, "")
        self.keys("disable", made["id"])
        self.assertTrue(self.keys().events()[0]["disabled"])
        self.keys("enable", made["id"])
        self.assertFalse(self.keys().events()[0]["disabled"])
        self.keys("remove", made["id"])
        self.assertEqual(self.keys().out, "")
        self.keys("remove", made["id"], rc=1)
        self.assertEqual(self.actions(), [("key." + what, made["id"]) for what in ("add", "disable", "enable", "remove")])

    def test_a_pair_needs_the_gateways_key_file(self):
        seal = self.path("seal")
        with open(seal, "w", encoding="ascii") as f:
            f.write("0123456789abcdef" * 4 + "\n")
        os.chmod(seal, 0o600)
        self.keys("add", "--signing", rc=2)
        made = self.keys("add", "--signing", "--seal-key", seal).events()[0]
        self.assertRegex(made["id"], "^ALTAK[0-9a-z]{16}$")
        self.assertRegex(made["secret"], "^[0-9a-z]{32}$")
        self.assertNotIn(made["secret"], self.keys("list").out)
        self.assertTrue(self.keys("list").events()[0]["signing"])
        os.chmod(seal, 0o644)
        self.keys("add", "--signing", "--seal-key", seal, rc=78)

    def test_limits_that_are_not_given_stay(self):
        first = self.c.ctl("tenants", "set", "acme", "--queued", "10", "--storage", "1GiB", "--json").events()[0]
        self.assertEqual((first["queued"], first["storage_bytes"], first["running"]), (10, 1 << 30, 0))
        self.c.ctl("tenants", "set", "acme", "--running", "3", "--requests", "60")
        t = self.c.ctl("tenants", "--json").events()
        self.assertEqual(len(t), 1)
        self.assertEqual((t[0]["queued"], t[0]["running"], t[0]["requests_per_minute"]), (10, 3, 60))
        self.c.ctl("tenants", "set", "acme", "--queued", "5000000000", rc=2)
        self.c.ctl("tenants", "set", "acme", "--priority-best", "10", rc=3)
        self.assertEqual(self.actions(), [("tenant.set", "acme")] * 2)


if __name__ == "__main__":
    cluster.main()
