/* test_gang.c -- leaders and members: how they find each other, and that they let go in time. */
#include "jobs/gang_inside.h"
#include "jobs/gang_pick.h"
#include "tests/unit/jobs/rig.h"

#include <stdio.h>
#include <string.h>

static const qd_gang_self one_host = {
    .build = "b1", .numerics_id = "n1", .device_class = "cpu", .host = "h1", .collective = "shm", .one_host = true};
static const qd_jobs_opts as_ranks = {.gang = &one_host};

static void beat_in(program *p, const char *id, const char *host, const char *rack, const char *sw)
{
    qd_worker_heartbeat *hb = qd_worker_heartbeat_new();
    if (rack != NULL) assert_int_equal(qd_text_add(&hb->topology, &hb->n_topology, rack, NULL), QD_OK);
    if (sw != NULL) assert_int_equal(qd_text_add(&hb->topology, &hb->n_topology, sw, NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->id, id, NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->host, host, NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->build, "b1", NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->numerics_id, "n1", NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->device_class, "cpu", NULL), QD_OK);
    assert_int_equal(qd_text_set(&hb->collective_version, "shm", NULL), QD_OK);
    hb->state = QUANTD__WORKER_STATE__WORKER_IDLE;
    assert_int_equal(qd_jobs_heartbeat(p->jobs, hb, NULL), QD_OK);
    qd_msg_free(hb);
}

static void beat_at(program *p, const char *id, const char *host)
{
    beat_in(p, id, host, NULL, NULL);
}

static rig *ranks_new(void)
{
    rig *r = rig_new(&as_ranks);
    beat_at(&r->w1, "w1", "h1");
    beat_at(&r->w2, "w2", "h1");
    return r;
}

static void create_for(rig *r, const char *id, uint32_t min, uint32_t max)
{
    qd_job_spec *s = spec_new(id);
    s->ranks_min = min;
    s->ranks_max = max;
    assert_int_equal(qd_jobs_create(r->gate.jobs, id, s, true, NULL, NULL), QD_OK);
    qd_msg_free(s);
    admit(r);
    pass_ms(r, 1);
}

typedef struct pair {
    rig *r;
    qd_task *t;
    qd_lead *l;
    qd_follow *f;
    qd_lead_word lead;
    qd_follow_word follow;
} pair;

/* A step of both; what gets lost is asked again. The lease is renewed. */
static void both(pair *p, uint64_t ms)
{
    pass_ms(p->r, ms);
    qd_code rc = p->l == NULL ? QD_OK : qd_lead_step(p->l, &p->lead, NULL);
    assert_true(rc == QD_OK || rc == QD_E_AWAY);
    if (rc == QD_E_AWAY && p->lead == QD_LEAD_BROKEN) fail_msg("broken without a word");
    rc = p->t == NULL ? QD_OK : qd_task_renew(p->t, NULL);
    assert_true(rc == QD_OK || rc == QD_E_AWAY);
    if (p->f == NULL)
        rc = qd_follow_look(p->r->w2.jobs, &p->f, NULL);
    else
        rc = qd_follow_step(p->f, &p->follow, NULL);
    assert_true(rc == QD_OK || rc == QD_E_AWAY);
}

static pair pair_new(uint32_t min, uint32_t max)
{
    pair p = {.r = ranks_new()};
    create_for(p.r, "j1", min, max);
    p.t = take_run(p.r, &p.r->w1);
    assert_int_equal(qd_lead_open(p.t, &p.l, NULL), QD_OK);
    return p;
}

static void pair_done(pair *p)
{
    qd_follow_free(p->f);
    qd_lead_free(p->l);
    rig_done(p->r, p->t);
}

static void until_start(pair *p)
{
    for (int i = 0; i < 100 && p->lead != QD_LEAD_START; i++) both(p, 100);
    assert_int_equal(p->lead, QD_LEAD_START);
}

/* Both have their child. */
static void until_running(pair *p)
{
    until_start(p);
    qd_lead_started(p->l);
    both(p, 10);
    assert_int_equal(p->lead, QD_LEAD_RUN);
    assert_int_equal(p->follow, QD_FOLLOW_WAIT); /* no invite yet */
    assert_int_equal(qd_lead_invite(p->l, "\1\0\2", 3, NULL), QD_OK);
    for (int i = 0; i < 100 && p->follow != QD_FOLLOW_START; i++) both(p, 100);
    assert_int_equal(p->follow, QD_FOLLOW_START);
    qd_follow_tell(p->f, QUANTD__MEMBER_STATE__MEMBER_RUNNING, NULL, 0);
    both(p, 100);
    assert_int_equal(p->follow, QD_FOLLOW_RUN);
}

static void two_workers_become_a_gang_and_finish(void **state)
{
    (void)state;
    size_t n = 0;
    pair p = pair_new(2, 2);
    until_running(&p);
    assert_int_equal(qd_lead_size(p.l), 2);
    assert_int_equal(qd_follow_rank(p.f), 1);
    assert_int_equal(qd_follow_size(p.f), 2);
    assert_memory_equal(qd_follow_invite(p.f, &n), "\1\0\2", 3);
    assert_int_equal(n, 3);
    for (int i = 0; i < 30; i++) {
        both(&p, LEASE_MS / 4);
        assert_int_equal(p.lead, QD_LEAD_RUN);
        assert_int_equal(p.follow, QD_FOLLOW_RUN);
    }
    qd_follow_tell(p.f, QUANTD__MEMBER_STATE__MEMBER_DONE, NULL, 50);
    for (int i = 0; i < 10; i++) both(&p, LEASE_MS / 4);
    assert_int_equal(p.lead, QD_LEAD_RUN);
    assert_int_equal(p.follow, QD_FOLLOW_WAIT);
    assert_int_equal(qd_lead_device_ms(p.l), 50);
    rename_out(p.r, p.t);
    assert_int_equal(qd_task_finish(p.t, NULL, 60, NULL), QD_OK);
    qd_lead_end(p.l);
    assert_false(key_there(p.r, QD_BUCKET_LIVE, "gang.j1"));
    qd_job_record *rec = record_of(p.r, "j1");
    assert_int_equal(rec->ranks, 2);
    assert_null(rec->reservation);
    qd_msg_free(rec);
    for (int i = 0; i < 3; i++) assert_int_equal(qd_follow_step(p.f, &p.follow, NULL), QD_OK);
    assert_int_equal(p.follow, QD_FOLLOW_OVER);
    pair_done(&p);
}

static void whatever_call_gets_lost_a_gang_comes_to_be(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 60; at++)
        for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++)
            for (int who = 0; who < 2; who++) {
                pair p = pair_new(2, 2);
                lose(who == 0 ? &p.r->w1 : &p.r->w2, (loss)what, at);
                until_running(&p);
                pair_done(&p);
            }
}

static void a_job_of_one_rank_starts_at_once(void **state)
{
    (void)state;
    pair p = pair_new(0, 0);
    assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK);
    assert_int_equal(p.lead, QD_LEAD_START);
    assert_int_equal(qd_lead_size(p.l), 1);
    qd_lead_started(p.l);
    qd_lead_dissolve(p.l, "");
    assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK);
    assert_int_equal(p.lead, QD_LEAD_CLEAR);
    pair_done(&p);
}

static void one_that_may_be_alone_waits_for_the_window_only(void **state)
{
    (void)state;
    pair p = pair_new(1, 4);
    for (int i = 0; i < 20 && p.lead != QD_LEAD_START; i++) {
        pass_ms(p.r, 100);
        assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK);
    }
    assert_int_equal(p.lead, QD_LEAD_START);
    assert_int_equal(qd_lead_size(p.l), 1);
    assert_int_equal(qd_follow_look(p.r->w2.jobs, &p.f, NULL), QD_OK);
    assert_null(p.f); /* the call is over */
    pair_done(&p);
}

static void a_silent_member_is_gone_after_a_lease_and_a_new_gang_is_called(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    until_running(&p);
    uint64_t until_ms = qd_follow_until_ms(p.f), began_ms = qd_bus_mem_now_ms(p.r->mem);
    for (int i = 0; i < 100 && p.lead != QD_LEAD_BROKEN; i++) {
        pass_ms(p.r, 500);
        assert_int_equal(qd_task_renew(p.t, NULL), QD_OK);
        assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK);
    }
    assert_int_equal(p.lead, QD_LEAD_BROKEN);
    uint64_t now = qd_bus_mem_now_ms(p.r->mem);
    assert_true(now >= until_ms); /* by its own clock it has stopped before */
    assert_true(now - began_ms <= 2 * LEASE_MS);
    assert_int_equal(qd_lead_again(p.l, qd_lead_why(p.l), NULL), QD_OK);
    assert_int_equal(qd_follow_step(p.f, &p.follow, NULL), QD_OK);
    assert_int_equal(p.follow, QD_FOLLOW_STOP);
    qd_follow_tell(p.f, QUANTD__MEMBER_STATE__MEMBER_LEFT, NULL, 7);
    for (int i = 0; i < 100 && p.lead != QD_LEAD_START; i++) {
        both(&p, 100);
        if (p.f == NULL || p.follow != QD_FOLLOW_OVER) continue;
        qd_follow_free(p.f);
        p.f = NULL;
        p.follow = QD_FOLLOW_WAIT;
    }
    assert_int_equal(p.lead, QD_LEAD_START);
    assert_int_equal(qd_lead_number(p.l), 2);
    pair_done(&p);
}

static void a_member_whose_leader_is_silent_stops_before_another_can_take_the_job(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) { /* the leader falls silent, or the member is cut off */
        pair p = pair_new(2, 2);
        uint64_t left_ms = 0;
        until_running(&p);
        if (cut != 0) qd_bus_mem_partition(p.r->w2.real, true);
        for (int i = 0; i < 200 && qd_follow_until_ms(p.f) - qd_bus_mem_now_ms(p.r->mem) > 150; i++) {
            pass_ms(p.r, 100);
            qd_code rc = qd_follow_step(p.f, &p.follow, NULL);
            assert_true(rc == QD_OK || rc == QD_E_AWAY);
            assert_int_equal(p.follow, QD_FOLLOW_RUN);
        }
        pass_ms(p.r, qd_follow_until_ms(p.f) - qd_bus_mem_now_ms(p.r->mem) - 1);
        qd_job_record *rec = record_of(p.r, "j1");
        assert_int_equal(qd_lease_left(p.r->gate.jobs, rec, &left_ms, NULL), QD_OK);
        assert_true(left_ms != 0);
        qd_msg_free(rec);
        pass_ms(p.r, 1);
        (void)!qd_follow_step(p.f, &p.follow, NULL);
        assert_int_equal(p.follow, QD_FOLLOW_STOP);
        pair_done(&p);
    }
}

static void the_job_goes_back_only_when_members_are_off(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    until_running(&p);
    qd_lead_dissolve(p.l, "drains");
    for (int i = 0; i < 5; i++) {
        both(&p, 100);
        assert_int_equal(p.lead, QD_LEAD_WAIT);
    }
    assert_int_equal(p.follow, QD_FOLLOW_STOP);
    assert_string_equal(qd_follow_why(p.f), "drains");
    qd_follow_tell(p.f, QUANTD__MEMBER_STATE__MEMBER_LEFT, NULL, 7);
    for (int i = 0; i < 5 && p.follow != QD_FOLLOW_OVER; i++) both(&p, 100);
    assert_int_equal(p.follow, QD_FOLLOW_OVER);
    for (int i = 0; i < 5 && p.lead != QD_LEAD_CLEAR; i++) {
        pass_ms(p.r, 300);
        assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK);
    }
    assert_int_equal(p.lead, QD_LEAD_CLEAR);
    assert_int_equal(qd_lead_device_ms(p.l), 7);
    assert_int_equal(qd_task_hand_back(p.t, NULL, 0, NULL), QD_OK);
    qd_lead_end(p.l);
    assert_false(key_there(p.r, QD_BUCKET_LIVE, "gang.j1"));
    pair_done(&p);
}

static void a_members_failure_reaches_the_leader(void **state)
{
    (void)state;
    for (int fault = 0; fault < 2; fault++) {
        pair p = pair_new(2, 2);
        qd_job_error e = error_of(fault != 0 ? QUANTD__ERROR_CLASS__ERROR_JOB : QUANTD__ERROR_CLASS__ERROR_NODE);
        until_running(&p);
        qd_follow_tell(p.f, QUANTD__MEMBER_STATE__MEMBER_LEFT, &e, 0);
        for (int i = 0; i < 5 && p.lead != QD_LEAD_BROKEN; i++) both(&p, 100);
        assert_int_equal(p.lead, QD_LEAD_BROKEN);
        assert_non_null(strstr(qd_lead_why(p.l), "it is broken"));
        assert_true((qd_lead_error(p.l) != NULL) == (fault != 0));
        assert_int_equal(qd_jobs_node_failures(p.r->w2.jobs), fault == 0);
        qd_follow_free(p.f);
        p.f = NULL;
        assert_int_equal(qd_lead_again(p.l, "x", NULL), QD_OK);
        for (int i = 0; i < 20; i++) both(&p, 200); /* it keeps away */
        assert_null(p.f);
        pair_done(&p);
    }
}

static void a_member_that_joined_and_does_not_start_is_as_one_that_is_gone(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    until_start(&p);
    qd_lead_started(p.l);
    assert_int_equal(qd_lead_invite(p.l, "\1", 1, NULL), QD_OK);
    for (int i = 0; i < 100 && p.lead != QD_LEAD_BROKEN; i++) both(&p, 100);
    assert_int_equal(p.lead, QD_LEAD_BROKEN);
    assert_int_equal(p.follow, QD_FOLLOW_START);
    pair_done(&p);
}

static void a_gang_that_breaks_on_and_on_is_given_up(void **state)
{
    (void)state;
    pair p = pair_new(1, 2);
    for (int i = 0; i < QD_GANG_BREAKS_MAX; i++) assert_int_equal(qd_lead_again(p.l, "x", NULL), QD_OK);
    assert_int_equal(qd_lead_again(p.l, "x", NULL), QD_E_GANG);
    pair_done(&p);
}

static void the_younger_of_two_leaders_yields_and_serves_the_older(void **state)
{
    (void)state;
    rig *r = ranks_new();
    qd_lead *l1 = NULL, *l2 = NULL;
    qd_follow *f = NULL;
    qd_lead_word word = QD_LEAD_WAIT;
    create_for(r, "j2", 2, 2); /* by age, not by name */
    create_for(r, "j1", 2, 2);
    qd_task *t1 = take_run(r, &r->w1), *t2 = take_run(r, &r->w2);
    assert_string_equal(qd_task_record(t1)->id, "j2");
    assert_int_equal(qd_lead_open(t1, &l1, NULL), QD_OK);
    assert_int_equal(qd_lead_open(t2, &l2, NULL), QD_OK);
    for (int i = 0; i < 30 && word != QD_LEAD_YIELD; i++) {
        pass_ms(r, 200);
        assert_int_equal(qd_lead_step(l1, &word, NULL), QD_OK);
        assert_int_equal(word, QD_LEAD_WAIT);
        assert_int_equal(qd_lead_step(l2, &word, NULL), QD_OK);
    }
    assert_int_equal(word, QD_LEAD_YIELD);
    assert_int_equal(qd_lead_yield(l2, NULL), QD_OK);
    assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
    assert_int_equal(qd_follow_look(r->w2.jobs, &f, NULL), QD_OK);
    assert_string_equal(qd_follow_record(f)->id, "j2");
    qd_follow_free(f);
    qd_lead_free(l1);
    qd_lead_free(l2);
    qd_task_free(t2);
    rig_done(r, t1);
}

static void one_that_is_offered_changes_to_an_older_call(void **state)
{
    (void)state;
    rig *r = ranks_new();
    qd_lead *l = NULL, *l2 = NULL;
    qd_lead_word word = QD_LEAD_WAIT;
    qd_follow *f = NULL;
    qd_follow_word how = QD_FOLLOW_WAIT;
    create_for(r, "j1", 3, 3);
    create_for(r, "j2", 3, 3);
    beat_at(&r->gate, "gate", "h1");
    qd_task *t1 = take_run(r, &r->w1);
    assert_int_equal(qd_lead_open(t1, &l, NULL), QD_OK);
    qd_task *t2 = take_run(r, &r->w1); /* j2: one worker leads both here, its calls are what matters */
    assert_int_equal(qd_lead_open(t2, &l2, NULL), QD_OK);
    assert_int_equal(qd_lead_step(l2, &word, NULL), QD_OK);
    assert_int_equal(qd_follow_look(r->w2.jobs, &f, NULL), QD_OK);
    assert_string_equal(qd_follow_record(f)->id, "j2");
    assert_int_equal(qd_follow_step(f, &how, NULL), QD_OK);
    assert_int_equal(how, QD_FOLLOW_WAIT);
    assert_int_equal(qd_lead_step(l, &word, NULL), QD_OK);
    for (int i = 0; i < 3 && how != QD_FOLLOW_OVER; i++) assert_int_equal(qd_follow_step(f, &how, NULL), QD_OK);
    assert_int_equal(how, QD_FOLLOW_OVER);
    qd_follow_free(f);
    assert_int_equal(qd_follow_look(r->w2.jobs, &f, NULL), QD_OK);
    assert_string_equal(qd_follow_record(f)->id, "j1");
    qd_follow_free(f);
    qd_lead_free(l);
    qd_lead_free(l2);
    qd_task_free(t2);
    rig_done(r, t1);
}

static void a_job_for_more_than_are_alive_is_not_taken(void **state)
{
    (void)state;
    rig *r = ranks_new();
    qd_task *t = NULL;
    create_for(r, "j1", 3, 3);
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER);
    assert_int_equal(state_of(r, "j1"), QD_JOB_QUEUING);
    pass_ms(r, LEASE_MS);
    beat_at(&r->gate, "gate", "h2"); /* another host, and shm is one host's */
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER);
    pass_ms(r, LEASE_MS);
    beat_at(&r->gate, "gate", "h1");
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_RUN);
    rig_done(r, t);
}

static void a_worker_that_is_no_rank_leaves_gangs_alone(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_task *t = NULL;
    create_for(r, "j1", 2, 2);
    assert_int_equal(take(r, &r->w1, &t), QD_TAKE_LATER);
    rig_done(r, t);
}

static void a_call_nobody_lives_behind_is_served_once(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_OK); /* calls, and is no more */
    assert_int_equal(qd_follow_look(p.r->w2.jobs, &p.f, NULL), QD_OK);
    assert_non_null(p.f);
    for (int i = 0; i < 300 && p.follow != QD_FOLLOW_OVER; i++) {
        pass_ms(p.r, 100);
        assert_int_equal(qd_follow_step(p.f, &p.follow, NULL), QD_OK);
    }
    assert_int_equal(p.follow, QD_FOLLOW_OVER);
    qd_follow_free(p.f);
    assert_int_equal(qd_follow_look(p.r->w2.jobs, &p.f, NULL), QD_OK);
    assert_null(p.f);
    qd_task *t = take_run(p.r, &p.r->w2); /* so it is free to take the job over */
    assert_int_equal(qd_task_record(t)->epoch, 2);
    assert_null(qd_task_record(t)->reservation);
    qd_task_free(t);
    pair_done(&p);
}

static void a_leader_that_lost_the_job_cannot_write_its_gang(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    qd_lead *l2 = NULL;
    until_running(&p);
    pass_ms(p.r, 2 * LEASE_MS);
    beat_at(&p.r->w1, "w1", "h1");
    qd_task *t2 = take_run(p.r, &p.r->w2);
    assert_int_equal(qd_lead_open(t2, &l2, NULL), QD_OK);
    qd_gang_record *g = NULL;
    uint64_t rev = 0;
    assert_int_equal(qd_gang_get(p.r->gate.jobs, "j1", &g, &rev, NULL), QD_OK);
    g->epoch = 2;
    g->number = 1;
    assert_int_equal(qd_gang_put(p.r->w2.jobs, g, rev, NULL, NULL), QD_OK);
    qd_msg_free(g);
    assert_int_equal(qd_lead_again(p.l, "x", NULL), QD_OK);
    assert_int_equal(qd_lead_step(p.l, &p.lead, NULL), QD_E_CONFLICT);
    qd_lead_free(l2);
    qd_task_free(t2);
    pair_done(&p);
}

static void those_of_the_leaders_host_come_first(void **state)
{
    (void)state;
    rig *r = ranks_new();
    qd_pick p = {.job_id = "j1", .epoch = 1, .n_max = 1};
    qd_gang_member *m = qd_gang_member_new();
    create_for(r, "j1", 2, 2);
    beat_at(&r->gate, "gate", "h2");
    assert_int_equal(qd_text_set(&m->job_id, "j1", NULL), QD_OK);
    m->epoch = 1;
    m->state = QUANTD__MEMBER_STATE__MEMBER_OFFERED;
    assert_int_equal(qd_text_set(&m->worker, "gate", NULL), QD_OK);
    assert_int_equal(qd_member_put(r->gate.jobs, m, NULL), QD_OK);
    assert_int_equal(qd_pick_offers(r->w1.jobs, &p, NULL), QD_OK);
    assert_int_equal(p.n, 1);
    assert_int_equal(qd_text_set(&m->worker, "w2", NULL), QD_OK);
    assert_int_equal(qd_member_put(r->w2.jobs, m, NULL), QD_OK);
    assert_int_equal(qd_pick_offers(r->w1.jobs, &p, NULL), QD_OK);
    assert_int_equal(p.n, 1);
    assert_string_equal(p.list[0].worker, "w2");
    pass_ms(r, LEASE_MS); /* both are silent */
    assert_int_equal(qd_pick_offers(r->w1.jobs, &p, NULL), QD_OK);
    assert_int_equal(p.n, 0);
    qd_msg_free(m);
    rig_free(r);
}

static void offer(program *p, const char *worker)
{
    qd_gang_member *m = qd_gang_member_new();
    assert_int_equal(qd_text_set(&m->job_id, "j1", NULL), QD_OK);
    assert_int_equal(qd_text_set(&m->worker, worker, NULL), QD_OK);
    m->epoch = 1;
    m->state = QUANTD__MEMBER_STATE__MEMBER_OFFERED;
    assert_int_equal(qd_member_put(p->jobs, m, NULL), QD_OK);
    qd_msg_free(m);
}

static void of_other_hosts_the_one_that_shares_more_places_comes_first(void **state)
{
    (void)state;
    static const char *const racks[][2] = {{"r1", "r1/s2"}, {"r2", "r2/s1"}, {NULL, NULL}};
    rig *r = ranks_new();
    qd_pick p = {.job_id = "j1", .epoch = 1, .n_max = 1};
    create_for(r, "j1", 2, 2);
    beat_in(&r->w1, "w1", "h1", "r1", "r1/s1");
    beat_in(&r->w2, "w2", "h2", "r1", "r1/s1");
    offer(&r->gate, "gate");
    offer(&r->w2, "w2");
    for (size_t i = 0; i < sizeof racks / sizeof racks[0]; i++) { /* by id it would be the gate */
        beat_in(&r->gate, "gate", "h3", racks[i][0], racks[i][1]);
        assert_int_equal(qd_pick_offers(r->w1.jobs, &p, NULL), QD_OK);
        assert_int_equal(p.n, 1);
        assert_string_equal(p.list[0].worker, "w2");
    }
    beat_in(&r->gate, "gate", "h1", NULL, NULL); /* the same host is nearer than any place */
    assert_int_equal(qd_pick_offers(r->w1.jobs, &p, NULL), QD_OK);
    assert_string_equal(p.list[0].worker, "gate");
    rig_free(r);
}

static void a_gang_of_an_ended_job_is_swept(void **state)
{
    (void)state;
    pair p = pair_new(2, 2);
    qd_jobs_swept swept = {0};
    until_running(&p);
    assert_int_equal(qd_jobs_sweep_leaks(p.r->w2.jobs, &swept, NULL), QD_OK);
    assert_true(key_there(p.r, QD_BUCKET_LIVE, "gang.j1"));
    rename_out(p.r, p.t);
    assert_int_equal(qd_task_finish(p.t, NULL, 60, NULL), QD_OK);
    for (int i = 0; i < 3; i++) {
        pass_ms(p.r, LEASE_MS);
        assert_int_equal(qd_jobs_sweep_leaks(p.r->w2.jobs, &swept, NULL), QD_OK);
    }
    assert_false(key_there(p.r, QD_BUCKET_LIVE, "gang.j1"));
    pair_done(&p);
}

static void ranks_that_cannot_be_are_refused(void **state)
{
    (void)state;
    rig *r = rig_new(NULL);
    qd_job_spec *s = spec_new("x");
    s->ranks_min = 3;
    s->ranks_max = 2;
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j1", s, true, NULL, NULL), QD_E_INPUT);
    s->ranks_max = 65;
    assert_int_equal(qd_jobs_create(r->gate.jobs, "j1", s, true, NULL, NULL), QD_E_INPUT);
    qd_msg_free(s);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_workers_become_a_gang_and_finish),
        cmocka_unit_test(whatever_call_gets_lost_a_gang_comes_to_be),
        cmocka_unit_test(a_job_of_one_rank_starts_at_once),
        cmocka_unit_test(one_that_may_be_alone_waits_for_the_window_only),
        cmocka_unit_test(a_silent_member_is_gone_after_a_lease_and_a_new_gang_is_called),
        cmocka_unit_test(a_member_whose_leader_is_silent_stops_before_another_can_take_the_job),
        cmocka_unit_test(the_job_goes_back_only_when_members_are_off),
        cmocka_unit_test(a_members_failure_reaches_the_leader),
        cmocka_unit_test(a_member_that_joined_and_does_not_start_is_as_one_that_is_gone),
        cmocka_unit_test(a_gang_that_breaks_on_and_on_is_given_up),
        cmocka_unit_test(the_younger_of_two_leaders_yields_and_serves_the_older),
        cmocka_unit_test(one_that_is_offered_changes_to_an_older_call),
        cmocka_unit_test(a_job_for_more_than_are_alive_is_not_taken),
        cmocka_unit_test(a_worker_that_is_no_rank_leaves_gangs_alone),
        cmocka_unit_test(a_call_nobody_lives_behind_is_served_once),
        cmocka_unit_test(a_leader_that_lost_the_job_cannot_write_its_gang),
        cmocka_unit_test(those_of_the_leaders_host_come_first),
        cmocka_unit_test(of_other_hosts_the_one_that_shares_more_places_comes_first),
        cmocka_unit_test(a_gang_of_an_ended_job_is_swept),
        cmocka_unit_test(ranks_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
