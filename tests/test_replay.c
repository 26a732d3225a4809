/* Tests of how an item is divided into prompt calls and steps, and of loop detection. */
#include "run/replay.h"
#include "run/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { PROMPT = 5, TURNS = 4 };

/* Turn t: prompt 100t+1 .. 100t+5, reply 100t+51 ..; turn 2 replaces turn 1. */
static int32_t prompts[TURNS][PROMPT], replies[TURNS][16];
static const size_t reply_lengths[TURNS] = {4, 7, 2, 9};
static struct kvg_turn_tokens turns[TURNS];
static struct kvg_item item = {.id = "made"};
static struct kvg_item_tokens tokens = {.item = &item, .turns = turns, .n_turns = TURNS};

static void make_item(int rewinds)
{
    for (size_t t = 0; t < TURNS; t++) {
        for (size_t i = 0; i < PROMPT; i++)
            prompts[t][i] = (int32_t)(100 * t + 1 + i);
        for (size_t i = 0; i < reply_lengths[t]; i++)
            replies[t][i] = (int32_t)(100 * t + 51 + i);
        turns[t] = (struct kvg_turn_tokens){.prompt = prompts[t],
                                            .n_prompt = PROMPT,
                                            .reply = replies[t],
                                            .n_reply = reply_lengths[t],
                                            .parent = (int32_t)t - 1,
                                            .has_reply = 1,
                                            .n_timed = 3};
    }
    if (rewinds) {
        turns[2].parent = 0;
        turns[2].rewinds = 1;
    }
}

/* Feeds a replay into out as a stream would; returns how many tokens are there at the end. */
static size_t feed(const struct kvg_replay *r, int32_t *out, size_t *longest, size_t *longest_call)
{
    int32_t call[256];
    size_t n = 0;
    *longest = *longest_call = 0;
    for (size_t t = 0; t < r->n_used; t++) {
        const struct kvg_replay_turn *u = &r->turns[t];
        if (u->in->rewinds)
            n = u->begin;
        size_t k = kvg_replay_prompt(r, t, call);
        memcpy(out + n, call, k * sizeof *out);
        n += k;
        *longest_call = k > *longest_call ? k : *longest_call;
        assert_int_equal(n, kvg_replay_pos(r, t, 0));
        for (size_t j = 0; j < u->n_fed; j++)
            out[n++] = u->reply[j];
        *longest = n > *longest ? n : *longest;
    }
    return n;
}

static void test_what_is_fed_is_the_conversation(void **state)
{
    (void)state;
    static const size_t limits[] = {1, 3, 4, 7, 10, 22, 100, 0};
    for (int rewinds = 0; rewinds < 2; rewinds++)
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            struct kvg_arena a;
            struct kvg_replay r;
            int32_t fed[256], whole[256];
            size_t longest, longest_call, n_whole = 0;
            kvg_arena_init(&a);
            make_item(rewinds);
            assert_int_equal(kvg_replay_init(&r, &tokens, &a, NULL), 0);
            assert_int_equal(kvg_replay_score(&r, limits[l], &a, NULL), 0);
            size_t n = feed(&r, fed, &longest, &longest_call);
            for (size_t t = 0; t < TURNS; t++) {
                n_whole = r.turns[t].begin;
                for (size_t i = 0; i < PROMPT; i++)
                    whole[n_whole++] = prompts[t][i];
                for (size_t i = 0; i < reply_lengths[t]; i++)
                    whole[n_whole++] = replies[t][i];
                if (t + 1 == r.n_used)
                    break;
            }
            assert_true(n <= n_whole);
            assert_memory_equal(fed, whole, n * sizeof *fed);
            assert_true(longest_call <= r.n_call_max);
            assert_true(longest <= r.n_max);
            size_t all = 4 + 7 + 2 + 9;
            assert_int_equal(r.n_scored, limits[l] && limits[l] < all ? limits[l] : all);
            kvg_arena_release(&a);
        }
}

static void test_a_rewind_begins_behind_its_parent(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    kvg_arena_init(&a);
    make_item(1);
    assert_int_equal(kvg_replay_init(&r, &tokens, &a, NULL), 0);
    assert_int_equal(r.turns[1].begin, PROMPT + 4);
    assert_int_equal(r.turns[2].begin, PROMPT + 4);
    assert_int_equal(r.turns[3].begin, 2 * PROMPT + 4 + 2);
    kvg_arena_release(&a);
}

/* A turn that cuts goes back into the prompt of the one before; that one is stepped through without
 * being scored. */
static void test_a_cut_begins_inside_a_prompt(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    int32_t fed[64];
    size_t longest, longest_call;
    kvg_arena_init(&a);
    make_item(0);
    turns[0].n_scored = 0;
    turns[0].steps_whole = 1;
    turns[0].question = 3;
    turns[1].parent = 0;
    turns[1].start = 3;
    turns[1].rewinds = turns[1].cuts = 1;
    turns[1].n_scored = 5;
    struct kvg_item_tokens two = tokens;
    two.n_turns = 2;
    assert_int_equal(kvg_replay_init(&r, &two, &a, NULL), 0);
    kvg_replay_score_planned(&r);
    assert_int_equal(r.turns[0].n_fed, 4);
    assert_int_equal(r.turns[1].n_fed, 4);
    assert_int_equal(r.n_scored, 5);
    assert_int_equal(r.turns[1].begin, 3);
    assert_int_equal(kvg_replay_question(&r, 0), 3);
    assert_int_equal(feed(&r, fed, &longest, &longest_call), 3 + PROMPT + 4);
    assert_memory_equal(fed, prompts[0], 3 * sizeof *fed);
    assert_memory_equal(fed + 3, prompts[1], PROMPT * sizeof *fed);
    assert_true(longest <= r.n_max && longest_call <= r.n_call_max);
    kvg_arena_release(&a);
}

/* What is left of the reply before goes in with the prompt, and the question moves along. */
static void test_the_question_within_a_call(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    struct kvg_text text = {0};
    int32_t call[64];
    kvg_arena_init(&a);
    make_item(0);
    turns[1].question = 2;
    assert_int_equal(kvg_replay_init(&r, &tokens, &a, NULL), 0);
    kvg_replay_score_turn(&r, 0, 2); /* one of four is fed */
    kvg_replay_score_turn(&r, 1, 1);
    assert_int_equal(kvg_replay_prompt(&r, 1, call), 3 + PROMPT);
    assert_int_equal(kvg_replay_question(&r, 1), 3 + 2);
    assert_int_equal(call[kvg_replay_question(&r, 1)], 103);
    kvg_replay_mark(&r, 1, &text);
    assert_int_equal(text.question, PROMPT + 4 + 2);
    kvg_arena_release(&a);
}

static void test_other_replies_move_what_follows(void **state)
{
    (void)state;
    static const int32_t own[] = {900, 901};
    struct kvg_arena a;
    struct kvg_replay r;
    int32_t call[64];
    kvg_arena_init(&a);
    make_item(0);
    assert_int_equal(kvg_replay_init(&r, &tokens, &a, NULL), 0);
    kvg_replay_set_reply(&r, 0, own, 2);
    kvg_replay_score_turn(&r, 0, 3); /* both tokens and what closes the reply */
    kvg_replay_score_turn(&r, 1, 1);
    assert_int_equal(r.turns[0].n_fed, 2);
    assert_int_equal(r.turns[1].begin, PROMPT + 2);
    assert_int_equal(kvg_replay_prompt(&r, 1, call), PROMPT);
    kvg_replay_score_turn(&r, 0, 2); /* ended by the limit: the last token is not fed yet */
    assert_int_equal(kvg_replay_prompt(&r, 1, call), PROMPT + 1);
    assert_int_equal(call[0], 901);
    kvg_arena_release(&a);
}

static void test_timed_steps(void **state)
{
    (void)state;
    struct kvg_arena a;
    struct kvg_replay r;
    kvg_arena_init(&a);
    make_item(0);
    assert_int_equal(kvg_replay_init(&r, &tokens, &a, NULL), 0);
    kvg_replay_step_timed(&r);
    assert_int_equal(r.n_scored, 0);
    assert_int_equal(r.n_used, TURNS);
    assert_int_equal(r.turns[0].n_fed, 3);
    assert_int_equal(r.turns[2].n_fed, 2); /* the reply has no more */
    kvg_arena_release(&a);
}

static void test_loops(void **state)
{
    (void)state;
    int32_t v[80];
    for (int32_t i = 0; i < 80; i++)
        v[i] = i;
    assert_int_equal(kvg_writer_loops(v, 80), 0);
    for (size_t len = 1; len <= 17; len++) {
        for (size_t i = 0; i < 80; i++)
            v[i] = i < 8 ? -1 - (int32_t)i : (int32_t)((i - 8) % len);
        assert_int_equal(kvg_writer_loops(v, 8 + 4 * len), len <= 16);
        assert_int_equal(kvg_writer_loops(v, 8 + 4 * len - 1), 0);
    }
    assert_int_equal(kvg_writer_loops(v, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_fed_is_the_conversation),
        cmocka_unit_test(test_a_rewind_begins_behind_its_parent),
        cmocka_unit_test(test_a_cut_begins_inside_a_prompt),
        cmocka_unit_test(test_the_question_within_a_call),
        cmocka_unit_test(test_other_replies_move_what_follows),
        cmocka_unit_test(test_timed_steps),
        cmocka_unit_test(test_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
