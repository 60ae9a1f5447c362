package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// The reasons for which a delivery becomes a dead letter: a closed set.
const (
	DeadAttempts = "max_attempts"   // the last attempt failed, too
	DeadAge      = "max_age"        // it failed, and is too old to be tried again
	DeadRefused  = "refused"        // the target answered with a 4xx that no repetition changes
	DeadGone     = "gone"           // the target answered with 410
	DeadTarget   = "target_deleted" // there is no such target any more
	DeadDamaged  = "damaged"        // the payload cannot be read
)

// The delays of what does not count as an attempt.
const (
	busyDelay   = 250 * time.Millisecond // other calls fill the target's cap
	sealedDelay = time.Minute            // no key opens the payload
)

// judgement is what follows from an attempt.
type judgement struct {
	verdict Verdict
	counted bool   // it was an attempt
	outcome string // "ok" or a reason of targetclient
	dead    string // why it is given up
	gone    bool   // the target asks not to be called any more
	goOn    bool   // the targets after it are told now
	stop    bool   // the targets after it are not told at all
}

// judge says what follows from what a call returned. The record is as before the
// attempt; age is that of the delivery.
//
// Every 2xx is a success, also when its body asks for an error to be forwarded:
// there is nobody to forward it to. It only keeps later targets from being told,
// if the delivery interrupts.
func judge(r *Record, schedule Schedule, age time.Duration, res targetclient.Result, err error) judgement {
	if err == nil {
		return judgement{verdict: Verdict{Action: Delivered}, counted: true, outcome: "ok", goOn: true}
	}
	failure, ok := errors.AsType[*targetclient.Error](err)
	if !ok {
		failure = &targetclient.Error{Reason: targetclient.ReasonTransport, Err: err}
		if errors.Is(err, context.Canceled) {
			failure.Reason = targetclient.ReasonCancelled
		}
	}
	j := judgement{outcome: failure.Reason.String()}
	switch failure.Reason {
	case targetclient.ReasonBreakerOpen, targetclient.ReasonCancelled:
		j.verdict = Verdict{Action: Release}
		return j
	case targetclient.ReasonOverConcurrency:
		j.verdict = Verdict{Action: Retry, After: rand.N(busyDelay)}
		return j
	case targetclient.ReasonForwarded, targetclient.ReasonPrecondition:
		j.verdict, j.counted = Verdict{Action: Delivered}, true
		j.goOn, j.stop = !r.Interrupt, r.Interrupt
		return j
	}
	j.counted = true
	switch status := failure.StatusCode; {
	case failure.Reason != targetclient.ReasonFailed:
		// No (complete) answer.
	case status == http.StatusGone:
		j.dead, j.gone = DeadGone, true
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests:
	case status >= 400 && status <= 499:
		j.dead = DeadRefused
	}
	var after time.Duration
	if j.dead == "" {
		after, j.dead = schedule.next(r.Attempts+1-r.Replayed, age, res.RetryAfter)
	}
	if j.dead != "" {
		j.verdict = Verdict{Action: Dead}
		j.goOn, j.stop = !r.Interrupt, r.Interrupt
		return j
	}
	j.verdict = Verdict{Action: Retry, After: after}
	j.goOn = !r.Interrupt
	return j
}
