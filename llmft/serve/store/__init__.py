"""What the desk stores, in SQLite or PostgreSQL; nothing in here knows of HTTP.

database    open_store(url=None, folder=None) -> Store · store.writing() · store.reading() · store.ping() · now() · ago(days)
calls       start_call(store, lang, by, *, subject=None) -> Call · read_call(store, id) · recent_calls(store, …)
            add_turn(store, id, speaker, text, *, key) -> CallTurn · replace_turns(store, id, turns) · end_call(store, id, status)
answers     record_answer(store, NewAnswer(…), prompt, by) -> Answer · read_answer(store, id) · answers_of(store, call_id)
            answers_between(store, since, until=None, kind=None) -> list[Answer]
journal     record(store, kind, body) -> Head · append(connection, kind, body) · export(store, path)
checking    verify(store, anchor=None) -> Verdict
retention   retain(store, content_days, log_days=None) · erase(store, subject=… or call_id=…)
keys        add_key(store, role, name) -> str · list_keys · revoke_key(store, id) · check_key(store, text) -> Identity | None
sessions    open_session(store, identity, hours) -> str · check_session(store, token) -> Identity | None · close_session
feedback    give_feedback(store, NewFeedback(…), by, roster=Roster()) -> Feedback · feedback_between(store, since, until)
loop        export_feedback(store, output_dir, beside=(), …) -> Exported
models      use_model(store, path, …) · roll_back(store) · active_model(store) -> ModelVersion | None · list_models(store)

Texts that come in here are without personal data already, save the free text of feedback, which
``give_feedback`` cleans itself. Errors: :class:`NotStoredError` (no such call, answer, slot, …), :class:`ConflictError` (taken,
already ended, a key used twice for different things) and :class:`StoreDownError` (the database does not answer; repeat with the
same key). All of them are :class:`StoreError`.

Times are text in UTC, ``2026-11-22T05:34:22.123456Z``: the same in both databases, in order when sorted, exact in the journal.
"""
