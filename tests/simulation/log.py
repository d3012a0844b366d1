"""The independent log of one history: what simulated jobs really did, and what callers were told.

It is a list of plain dicts, in the order in which things happened. Whoever judges it needs nothing of
gigq: the judge reads this log and the final rows alone.

Every entry has `at_us` (virtual monotonic microseconds, never going back), `kind`, and `who` (the name
of a simulated process, such as `worker-2.1`: the second worker's first life).

What was asked for; `answer` is `"unknown"` where the caller died or got no answer, so that it may or may
not have happened, at that instant; `began_us` is when the call began:

- `submit`: `jobs`, a list of `{id, parents, queue, priority, max_attempts, on_parent_failure,
  earliest_us, expires, expires_after_us, unique_key, accepted}`; `answer` `"ok"`, `"unknown"` or
  `"refused"` (nothing was stored); `existing`, pairs `[id, id that is there instead]` of jobs that a
  unique key turned away; `repeat`, whether it is the same submit again after no answer (the ids are the
  same). A submit that was repeated has an entry for each try. `earliest_us` is the instant before which
  the job must not begin because of a delay, or null; `expires` whether it may be cancelled by time,
  `expires_after_us` the instant before which it must not be, where that is a delay and no date; `dated`
  whether it waits for a date; `accepted` is false when no worker takes its serializer, function or queue.
- `cancel` (`ids`, `running`, `answer`: list of bool), `requeue` (`ids`, `answer`: list of bool or
  `"refused"`), `clear` (`where`: `{statuses}`, `answer`: `{removed, kept}`), `pause`, `resume` (`queue`,
  `answer`: `"ok"`), `restore` (`ids`, `answer`: how many were new), `set_retention` (`ages`: how long ended
  jobs are kept, by status).
- `removed`: `ids`, a list of `[id, status it had]`: jobs that were seen to be gone after a `clear` or
  `recover` of `who` (also where the answer was lost); `asked`: the statuses that the clear named, null
  where the retention decided.
- `damage`: `found`, what a `check` of `who` found wrong.
- `expired`: `job`, which time has cancelled.
- `lost`: `losses`, `[[id, run, session that had it, status that the job has now], ...]`, what a
  `recover` answered.

What reached a worker:

- `joined`: `session`, `host`, `executor` (`"thread"` or `"process"`), `lease_us`, `slots`,
  `queues` (those that it takes, empty for all).
- `claimed`: `session`, `jobs`: `[[id, run, attempt, ahead], ...]` in the order handed out; `again` true
  when the turn named what it was holding, so that runs claimed unheard may come once more; `reached`
  false when the answer was lost or the worker died before it: then the storage took the jobs, and nobody
  heard of it. (Also true where the worker died before it did anything with the answer.)
- `recorded`: `session`, `jobs`: `[[id, run, what, delay_us], ...]` outcomes that a turn acknowledged, `what`
  being completed, failed, timed_out, snoozed, stopped, handed_back or ended, `delay_us` how long the job
  is not to be tried again, if it is; `stale`: `[[id, run], ...]` those
  of them that it refused because they were no longer the session's; `reached` as for `claimed`.
- `started`: `session`, `jobs`: `[[id, run], ...]` of which a turn said that they began after they had lain
  ready. `renewed`: `session`, of a turn that brought no outcomes and no claims.
- `session_lost`: `session`, `refused`: `[[id, run], ...]` outcomes that came too late. `left`: `session`.

What user code did, said by the simulated executor itself:

- `began`: `session`, `job`, `run`, `attempt`, `host`, `parents`: `[[id, text of its result or null], ...]`
  as they were passed, or null when they were not asked for.
- `ended`: `session`, `job`, `run`, `how`, `value`. `how` is `returned` (then `value` is the text that it
  returned, another one for each run), `raised`, `gave_up`, `snoozed`, `stopped`, `timed_out`, `died`
  (its process ended with it, or was ended). A run that does not stop when it is told to ends late, as
  whatever it would have ended as, and `told` says what the worker had made of it meanwhile, or null:
  `timed_out`, `stopped`.

What befell processes; `fault` entries say what was done on purpose:

- `died`, `paused`, `resumed`, `told_to_stop` (`at_once`: bool; `grace_us`: how long
  it lets its runs go on, null for no bound), `exited`: the process `who`.
- `fault`: `call` (a contract method, or "" where it came from outside), `fault`: `before`, `within`,
  `after` (the process dies there), `answer_lost`, `away` (storage unreachable), `full` (nobody can write),
  `pause` (by a stop, or by a call that holds the GIL), `interrupted` (within the call; the process goes on),
  `wall` (the calendar jumps, `by_us`), `kill`.
- `back`: the storage can be reached again, by `who` or, where that is `world`, by all.
- `peace`: from here on nothing more is done to anybody, and queues are resumed.
- `settled`: nothing is left that waiting could change; `unsettled` instead when that did not come in time.

Sessions are named `s1`, `s2`, ... in the order in which they joined, because their real ids are random.

Final rows, read by `export` at the end, are a list of dicts: `{id, status, attempts, run, parents, queue,
priority, max_attempts, on_parent_failure, result (text or null), cancelled_by, error (text or null), lost,
stopping, executions: [{run, status, worker, result, error}]}`. `worker` begins with the name of the
process that ran it.
"""
