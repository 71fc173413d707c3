package crony

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Instance is one process of a service, as jobs that name the service find it.
type Instance struct {
	Address  string        `json:"address"`            // host:port, as the nodes of Crony reach it
	Protocol string        `json:"protocol,omitempty"` // grpc (the default), http or https
	Name     string        `json:"instance,omitempty"` // default: the address
	Version  string        `json:"version,omitempty"`
	TTL      time.Duration `json:"-"` // forgotten after so long a silence: 5 s to 10 min, default a minute
}

// Registration keeps an instance known to Crony for as long as it lives. Safe for use from several goroutines.
type Registration struct {
	base, token  string
	document     []byte
	ttl          time.Duration
	client       http.Client
	lock         sync.Mutex
	name, secret string
	healthy      bool
	weight       int
	stop, over   chan struct{}
}

// Register asks Crony's web at api to send the service's calls to this instance, too. The token has the scope service
// and the name of the service. While the web is away it is tried again in the background, and who was forgotten
// meanwhile is registered anew; a *Refused comes back at once.
func Register(ctx context.Context, api, token, service string, instance Instance) (*Registration, error) {
	if instance.TTL == 0 {
		instance.TTL = time.Minute
	}
	r := &Registration{token: token, ttl: instance.TTL, healthy: true, weight: 100, client: newClient(),
		stop: make(chan struct{}), over: make(chan struct{})}
	r.base = strings.TrimRight(api, "/") + "/api/v1/services/" + segment(service) + "/instances"
	var err error
	r.document, err = json.Marshal(struct {
		Instance
		TTL string `json:"ttl"`
	}{instance, fmt.Sprintf("%.0fs", instance.TTL.Seconds())})
	if err != nil {
		return nil, err
	}
	err = r.beat(ctx)
	var refused *Refused
	if errors.As(err, &refused) {
		return nil, refused
	}
	go r.goOn(err)
	return r, nil
}

// Set says whether it wants calls now, and its share of them (0 to 1000, at first 100); told at once.
func (r *Registration) Set(ctx context.Context, healthy bool, weight int) error {
	r.lock.Lock()
	r.healthy, r.weight = healthy, weight
	r.lock.Unlock()
	return r.beat(ctx)
}

// Close, called once, takes the instance off; when Crony cannot be asked, it is forgotten after its TTL.
func (r *Registration) Close(ctx context.Context) error {
	close(r.stop)
	select {
	case <-r.over: // a call under way is not cut: it may be the one that registers
	case <-ctx.Done():
		return ctx.Err()
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.secret == "" {
		return nil
	}
	_, err := post(ctx, &r.client, r.base+"/"+segment(r.name)+":leave", r.secret, []byte("{}"))
	return err
}

func (r *Registration) goOn(err error) {
	defer close(r.over)
	for {
		pause := r.ttl / 3
		var refused *Refused
		if err != nil && !errors.As(err, &refused) { // away: others wait for it, too
			pause = min(pause, 2*time.Second)
		}
		select {
		case <-r.stop:
			return
		case <-time.After(pause):
			err = r.beat(context.Background())
		}
	}
}

// beat is a sign of life; it registers where that is not known (any more).
func (r *Registration) beat(ctx context.Context) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	sign, _ := json.Marshal(map[string]any{"healthy": r.healthy, "weight": r.weight})
	for known := r.secret != ""; ; known = false {
		if !known {
			content, err := post(ctx, &r.client, r.base, r.token, r.document)
			if err != nil {
				return err
			}
			var told struct{ Instance, Secret string }
			if err := json.Unmarshal(content, &told); err != nil {
				return err
			}
			r.name, r.secret = told.Instance, told.Secret
		}
		_, err := post(ctx, &r.client, r.base+"/"+segment(r.name)+":heartbeat", r.secret, sign)
		var refused *Refused
		if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
			r.secret = "" // forgotten meanwhile
			if known {
				continue
			}
		}
		return err
	}
}

// segment is a part of a path, in which a colon would begin a verb.
func segment(text string) string { return strings.ReplaceAll(url.PathEscape(text), ":", "%3A") }
