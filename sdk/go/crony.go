// Package crony is a client of Crony's callbacks, contract v1: check that a call is genuine, and report about it later.
// Standard library only: copy this file, or import it. registration.go is for services that jobs call by name.
package crony

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Window is how far a call's time may be from ours.
const Window = 5 * time.Minute

// Sign is the value of X-Crony-Signature. The target is path and query exactly as sent.
func Sign(secret, timestamp, method, target, run, attempt, fence, callback string, body []byte) string {
	digest := sha256.Sum256(body)
	sum := hex.EncodeToString(digest[:])
	lines := []string{"v1", timestamp, strings.ToUpper(method), target, run, attempt, fence, callback, sum}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(strings.Join(lines, "\n")))
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Verify returns an error unless one of the secrets signed exactly this request within Window of now.
// A copy within the window passes: refuse a run and attempt that you have had.
func Verify(r *http.Request, body []byte, secrets []string, now time.Time) error {
	stamp, given := r.Header.Get("X-Crony-Timestamp"), r.Header.Get("X-Crony-Signature")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || given == "" {
		return errors.New("the call is not signed")
	}
	genuine := false
	for _, secret := range secrets { // each is tried, so that the time taken says nothing
		if len(secret) < 32 {
			return errors.New("a secret is shorter than 32 characters")
		}
		made := Sign(secret, stamp, r.Method, r.RequestURI, r.Header.Get("X-Crony-Run"), r.Header.Get("X-Crony-Attempt"),
			r.Header.Get("X-Crony-Fence"), r.Header.Get("X-Crony-Callback"), body)
		genuine = hmac.Equal([]byte(made), []byte(given)) || genuine
	}
	if !genuine {
		return errors.New("the signature fits none of our secrets")
	}
	if off := now.Sub(time.Unix(seconds, 0)); off > Window || off < -Window {
		return fmt.Errorf("the call was signed %s from our clock", off)
	}
	return nil
}

// Completion reports about one attempt. Safe for use from several goroutines.
type Completion struct {
	Run, Attempt, Callback string
	Deadline               time.Time
	Interval               time.Duration // between heartbeats
	token                  string
	client                 http.Client
}

// Standing is how the attempt stands. Cancel: stop working.
type Standing struct {
	State   string `json:"state"`
	Outcome string `json:"outcome"`
	Cancel  bool   `json:"cancel"`
}

// Refused is a final answer of the platform. Outcome is how the attempt ended, where a 409 says so.
type Refused struct {
	Status          int
	Detail, Outcome string
}

func (r *Refused) Error() string { return fmt.Sprintf("Crony answered %d: %s", r.Status, r.Detail) }

// FromHeader is the completion of the call with these headers; an error when it wants its answer at once.
func FromHeader(h http.Header) (*Completion, error) {
	c := &Completion{Run: h.Get("X-Crony-Run"), Attempt: h.Get("X-Crony-Attempt"), Callback: h.Get("X-Crony-Callback")}
	c.token, c.Interval, c.client = h.Get("X-Crony-Token"), 30*time.Second, newClient()
	if c.Run == "" || c.Callback == "" || c.token == "" {
		return nil, errors.New("the call has no callback: is the job async?")
	}
	var err error
	if c.Deadline, err = time.Parse(time.RFC3339, h.Get("X-Crony-Deadline")); err != nil {
		return nil, errors.New("X-Crony-Deadline is no RFC 3339 time")
	}
	if beat, err := strconv.ParseFloat(h.Get("X-Crony-Heartbeat"), 64); err == nil && beat > 0 {
		c.Interval = time.Duration(beat / 3 * float64(time.Second))
	}
	return c, nil
}

// Heartbeat says once that the work is alive.
func (c *Completion) Heartbeat(ctx context.Context) (Standing, error) {
	return c.once(ctx, "heartbeat", []byte("{}"))
}

// Progress says how far it is: 0 to 100, and a few words.
func (c *Completion) Progress(ctx context.Context, percent float64, message string) (Standing, error) {
	body, _ := json.Marshal(map[string]any{"percent": percent, "message": message})
	return c.once(ctx, "progress", body)
}

// Log appends text, at most 64 KiB, to the attempt's output.
func (c *Completion) Log(ctx context.Context, text string) (Standing, error) {
	return c.surely(ctx, "log", map[string]any{"text": text})
}

// Complete ends the attempt well. It is repeated over outages until ctx or the deadline ends; *Refused is final.
func (c *Completion) Complete(ctx context.Context, result any) (Standing, error) {
	return c.surely(ctx, "complete", map[string]any{"result": result})
}

// Fail ends the attempt badly; final asks for no further one. Otherwise as Complete.
func (c *Completion) Fail(ctx context.Context, reason string, final bool) (Standing, error) {
	return c.surely(ctx, "fail", map[string]any{"reason": reason, "final": final})
}

// Alive sends heartbeats until the returned function is called; the returned context ends when the work should stop.
func (c *Completion) Alive(ctx context.Context) (context.Context, context.CancelFunc) {
	working, stop := context.WithCancel(ctx)
	go func() {
		defer stop()
		for {
			standing, err := c.Heartbeat(working)
			var refused *Refused
			if errors.As(err, &refused) || standing.Cancel || standing.State == "ended" {
				return
			}
			select {
			case <-working.Done():
				return
			case <-time.After(c.Interval):
			}
		}
	}()
	return working, stop
}

func (c *Completion) surely(ctx context.Context, verb string, fields map[string]any) (Standing, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return Standing{}, err
	}
	ctx, cancel := context.WithDeadline(ctx, c.Deadline)
	defer cancel()
	for pause := 300 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		standing, err := c.once(ctx, verb, body)
		var refused *Refused
		if err == nil || errors.As(err, &refused) {
			return standing, err
		}
		select {
		case <-ctx.Done():
			return Standing{}, fmt.Errorf("%s could not be delivered: %w", verb, err)
		case <-time.After(pause):
		}
	}
}

func (c *Completion) once(ctx context.Context, verb string, body []byte) (standing Standing, err error) {
	content, err := post(ctx, &c.client, c.Callback+":"+verb, c.token, body)
	if err == nil {
		err = json.Unmarshal(content, &standing)
	}
	return standing, err
}

// post is one call: what was answered, a *Refused for what would be refused again, any other error for what may be repeated.
func post(ctx context.Context, client *http.Client, url, token string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return content, nil
	}
	refused := &Refused{Status: response.StatusCode}
	said := json.Unmarshal(content, refused) == nil // an error page of a proxy was not said by Crony
	if said && response.StatusCode >= 400 && response.StatusCode < 500 && response.StatusCode != 429 {
		return nil, refused
	}
	return nil, fmt.Errorf("Crony answered %d", response.StatusCode)
}

// newClient follows no redirect: tokens go nowhere else.
func newClient() http.Client {
	return http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
