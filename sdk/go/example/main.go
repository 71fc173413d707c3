// A service in Go: POST /complete, /fail and /wait answer 202 and report later. It prints its port.
// With CRONY_SERVICE it registers as an instance of that service (CRONY_API, CRONY_TOKEN) until it is told to end.
// With an argument it checks the examples in that file instead (vectors.json), and prints the names of those it takes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crony"
)

func main() {
	if len(os.Args) > 1 {
		check(os.Args[1])
		return
	}
	secrets := strings.Split(os.Getenv("CRONY_CALL_SECRETS"), ",")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = crony.Verify(r, body, secrets, time.Now())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		completion, err := crony.FromHeader(r.Header)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		go work(completion, r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	leave := func() {}
	if service := os.Getenv("CRONY_SERVICE"); service != "" {
		leave = register(service, listener.Addr().String())
	}
	<-asked
	leave()
}

func register(service, address string) (leave func()) {
	instance := crony.Instance{Address: address, Protocol: "http", Name: "go", Version: "1.0", TTL: 5 * time.Second}
	api, token := os.Getenv("CRONY_API"), os.Getenv("CRONY_TOKEN")
	registration, err := crony.Register(context.Background(), api, token, service, instance)
	if err != nil {
		log.Fatal(err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := registration.Close(ctx); err != nil {
			log.Print(err)
		}
	}
}

func work(completion *crony.Completion, path string) {
	ctx, stop := completion.Alive(context.Background())
	defer stop()
	completion.Progress(ctx, 50, "half way")
	completion.Log(ctx, "a line of Go 日\n")
	var err error
	switch path {
	case "/fail":
		_, err = completion.Fail(ctx, "the work went wrong", true)
	case "/wait":
		<-ctx.Done()
		_, err = completion.Complete(context.Background(), nil) // too late: refused
	default:
		_, err = completion.Complete(ctx, map[string]any{"by": "Go", "run": completion.Run})
	}
	fmt.Println(completion.Run, err)
}

func check(path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Secret, Method, Target, Run, Callback, Signature string
			Timestamp                                              int64
			Attempt, Fence                                         int
			Body                                                   []byte
		}
	}
	if err := json.Unmarshal(content, &file); err != nil {
		log.Fatal(err)
	}
	for _, v := range file.Vectors {
		header := http.Header{}
		header.Set("X-Crony-Run", v.Run)
		header.Set("X-Crony-Attempt", strconv.Itoa(v.Attempt))
		header.Set("X-Crony-Fence", strconv.Itoa(v.Fence))
		if v.Callback != "" {
			header.Set("X-Crony-Callback", v.Callback)
		}
		header.Set("X-Crony-Timestamp", strconv.FormatInt(v.Timestamp, 10))
		header.Set("X-Crony-Signature", v.Signature)
		request := &http.Request{Method: v.Method, RequestURI: v.Target, Header: header}
		at, secrets := time.Unix(v.Timestamp, 0), []string{"another-" + v.Secret, v.Secret}
		if crony.Verify(request, v.Body, secrets, at) == nil && crony.Verify(request, v.Body, secrets, at.Add(301*time.Second)) != nil {
			fmt.Println(v.Name)
		}
	}
}
