package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const answerBytes = 1024

// chat is what the upstream reads of a request: how it is to answer.
type chat struct {
	Stream bool `json:"stream"`
	Bench  struct {
		Chunks int `json:"chunks"`
		// PaceUS is from one chunk to the next, as a model takes its time.
		PaceUS int `json:"pace_us"`
		// Gate names a stream whose every chunk waits until /gate/<name> said that the one
		// before it has arrived.
		Gate    string `json:"gate"`
		LimitMS int    `json:"limit_ms"`
	} `json:"bench"`
}

type upstream struct {
	answer []byte
	engine http.Handler
	gates  sync.Map // name -> chan struct{}
}

func newUpstream(engine []string) http.Handler {
	u := &upstream{answer: oneAnswer()}
	if len(engine) > 0 {
		u.engine = proxyTo(engine[0])
	}
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v1/chat/completions":
		u.chat(w, r)
	case strings.HasPrefix(r.URL.Path, "/gate/"):
		select {
		case u.gate(strings.TrimPrefix(r.URL.Path, "/gate/")) <- struct{}{}:
		default: // nobody waits for a chunk that came too late
		}
	case u.engine != nil:
		u.engine.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (u *upstream) chat(w http.ResponseWriter, r *http.Request) {
	var asked chat
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if asked.Stream {
		u.stream(w, r, asked)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(u.answer)
}

func (u *upstream) stream(w http.ResponseWriter, r *http.Request, asked chat) {
	w.Header().Set("Content-Type", "text/event-stream")
	held, began := 0, time.Now()
	gate := asked.Bench.Gate
	if gate != "" {
		defer u.gates.Delete(gate)
	}
	for number := 1; number <= asked.Bench.Chunks; number++ {
		if _, err := w.Write(oneChunk(number)); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		if gate == "" {
			pace := time.Duration(number*asked.Bench.PaceUS) * time.Microsecond
			time.Sleep(time.Until(began.Add(pace)))
			continue
		}
		select {
		case <-u.gate(gate):
		case <-r.Context().Done():
			return
		case <-time.After(time.Duration(asked.Bench.LimitMS) * time.Millisecond):
			held++
		}
	}
	fmt.Fprintf(w, "data: {\"choices\":[],\"held\":%d,\"usage\":{\"prompt_tokens\":64,"+
		"\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", held, asked.Bench.Chunks)
}

func (u *upstream) gate(name string) chan struct{} {
	gate, _ := u.gates.LoadOrStore(name, make(chan struct{}, 1))
	return gate.(chan struct{})
}

func oneChunk(number int) []byte {
	return fmt.Appendf(nil, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\","+
		"\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":"+
		"{\"content\":\" word%d\"},\"finish_reason\":null}]}\n\n", number)
}

// oneAnswer returns an answer of exactly so many bytes, as an engine would give it.
func oneAnswer() []byte {
	const shape = `{"id":"chatcmpl-bench","object":"chat.completion","created":1,"model":"tiny",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},` +
		`"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":64,"completion_tokens":128,"total_tokens":192}}`
	content := bytes.Repeat([]byte("x"), answerBytes-len(shape)+len("%s"))
	return fmt.Appendf(nil, shape, content)
}
