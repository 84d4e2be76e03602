package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// order is one line on stdin: what to send, and how many at once.
type order struct {
	// URL is what is asked, Upstream where gates are opened.
	URL         string `json:"url"`
	Upstream    string `json:"upstream"`
	Token       string `json:"token"`
	Model       string `json:"model"`
	Concurrency int    `json:"concurrency"`
	Requests    int    `json:"requests"`
	// ForS makes it go on for so long instead of for a number of requests.
	ForS float64 `json:"for_s"`
	// Chunks > 0 asks for streams.
	Chunks int `json:"chunks"`
	PaceUS int `json:"pace_us"`
	// IsGated lets each chunk wait for the one before it; IsHeld keeps all streams open at their
	// first chunk until a line comes on stdin.
	IsGated bool `json:"is_gated"`
	IsHeld  bool `json:"is_held"`
	LimitMS int  `json:"limit_ms"`
}

// outcome is one line on stdout. FirstMS and TookMS are one figure a request.
type outcome struct {
	ElapsedS float64   `json:"elapsed_s"`
	TookMS   []float64 `json:"took_ms"`
	FirstMS  []float64 `json:"first_ms"`
	Chunks   int       `json:"chunks"`
	Held     int       `json:"held"`
	Errors   []string  `json:"errors"`
}

type client struct {
	order
	http  *http.Client
	lines *bufio.Scanner
	out   io.Writer
	mu    sync.Mutex
	found outcome
	// opened are the streams that stand at their first chunk.
	opened  sync.WaitGroup
	goOn    chan struct{}
	started atomic.Int64
}

// obey says "ready" to each order when all of its connections stand, begins at the next line, and
// tells what it found.
func obey(in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var asked order
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		connections := pool()
		c := &client{
			order: asked,
			http:  &http.Client{Transport: connections},
			lines: lines,
			out:   out,
			found: outcome{TookMS: []float64{}, FirstMS: []float64{}, Errors: []string{}},
			goOn:  make(chan struct{}),
		}
		c.measure()
		connections.CloseIdleConnections()
		json.NewEncoder(out).Encode(c.found)
	}
}

func (c *client) measure() {
	if !c.IsHeld {
		c.everyone(func(int) { c.one(c.body(false, "")) })
		c.found.TookMS, c.found.FirstMS = c.found.TookMS[:0], c.found.FirstMS[:0]
		c.ready()
	}
	began := time.Now()
	if c.IsHeld {
		c.opened.Add(c.Concurrency)
		go func() {
			c.opened.Wait()
			c.ready()
			close(c.goOn)
		}()
	}
	c.everyone(func(worker int) {
		for c.isMoreAsked(began) {
			gate := ""
			if c.IsGated {
				gate = strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(worker)
			}
			c.one(c.body(c.Chunks > 0, gate), gate)
		}
	})
	c.found.ElapsedS = time.Since(began).Seconds()
}

func (c *client) ready() {
	fmt.Fprintln(c.out, "ready")
	c.lines.Scan()
}

func (c *client) isMoreAsked(began time.Time) bool {
	if c.ForS > 0 {
		return time.Since(began).Seconds() < c.ForS
	}
	return c.started.Add(1) <= int64(c.Requests)
}

func (c *client) everyone(do func(int)) {
	var all sync.WaitGroup
	for worker := 0; worker < c.Concurrency; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			do(worker)
		}()
	}
	all.Wait()
}

// body returns a chat of one KiB.
func (c *client) body(isStream bool, gate string) []byte {
	head := fmt.Sprintf(`{"model":%q,"stream":%t,"bench":{"chunks":%d,"pace_us":%d,"gate":%q,`+
		`"limit_ms":%d},"messages":[{"role":"user","content":"`,
		c.Model, isStream, c.Chunks, c.PaceUS, gate, c.LimitMS)
	const tail = `"}]}`
	return []byte(head + strings.Repeat("x", 1024-len(head)-len(tail)) + tail)
}

func (c *client) one(body []byte, gates ...string) {
	request, err := http.NewRequest("POST", c.URL+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		c.fail(err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+c.Token)
	began := time.Now()
	answer, err := c.http.Do(request)
	if err != nil {
		c.fail(err)
		return
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		c.fail(fmt.Errorf("%s: %s", answer.Status, text))
		return
	}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		c.read(answer.Body, began, gates[0])
		return
	}
	text, err := io.ReadAll(answer.Body)
	if err == nil && len(text) != answerBytes {
		err = fmt.Errorf("%d bytes came, not %d", len(text), answerBytes)
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.note(began, time.Now(), 0, 0)
}

// read takes a stream, event by event.
func (c *client) read(body io.Reader, began time.Time, gate string) {
	var first time.Time
	var last struct {
		Held int `json:"held"`
	}
	chunks, isDone := 0, false
	for events := bufio.NewScanner(body); events.Scan(); {
		data, isData := bytes.CutPrefix(events.Bytes(), []byte("data: "))
		switch {
		case !isData:
		case bytes.Equal(data, []byte("[DONE]")):
			isDone = true
		case bytes.HasPrefix(data, []byte(`{"choices":[]`)):
			json.Unmarshal(data, &last)
		default:
			chunks++
			if chunks == 1 {
				first = time.Now()
			}
			c.passOn(gate, chunks)
		}
	}
	if !isDone || chunks != c.Chunks {
		c.fail(fmt.Errorf("the stream broke off after %d of %d chunks", chunks, c.Chunks))
		return
	}
	c.note(began, first, chunks, last.Held)
}

// passOn tells the upstream that this chunk has arrived.
func (c *client) passOn(gate string, chunk int) {
	if gate == "" {
		return
	}
	if c.IsHeld && chunk == 1 {
		c.opened.Done()
		<-c.goOn
	}
	answer, err := c.http.Post(c.Upstream+"/gate/"+gate, "", nil)
	if err != nil {
		c.fail(err)
		return
	}
	answer.Body.Close()
}

func (c *client) note(began, first time.Time, chunks, held int) {
	took := time.Since(began).Seconds() * 1e3
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found.TookMS = append(c.found.TookMS, took)
	c.found.FirstMS = append(c.found.FirstMS, first.Sub(began).Seconds()*1e3)
	c.found.Chunks += chunks
	c.found.Held += held
}

func (c *client) fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found.Errors = append(c.found.Errors, err.Error())
}
