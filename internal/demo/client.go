package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// send makes one HTTP request with a JSON body, and returns status and body.
func (h *house) send(ctx context.Context, method, url, token, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return resp.StatusCode, answer, nil
}

func (h *house) get(ctx context.Context, url string) (int, []byte, error) {
	return h.send(ctx, http.MethodGet, url, "", "")
}

// admin calls the admin API and returns the answer, or an error when it is none
// of the 2xx.
func (h *house) admin(ctx context.Context, method, path, body string) (map[string]any, error) {
	code, answer, err := h.send(ctx, method, "http://"+h.gateway.AdminAddr()+path, h.token, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if code/100 != 2 {
		return nil, fmt.Errorf("%s %s: HTTP %d %s", method, path, code, bytes.TrimSpace(answer))
	}
	var object map[string]any
	if err := json.Unmarshal(answer, &object); err != nil {
		return nil, fmt.Errorf("%s %s: answer is no object: %w", method, path, err)
	}
	return object, nil
}

// dig follows keys into nested objects and returns the string there, if any.
func dig(object any, keys ...string) string {
	for _, k := range keys {
		m, _ := object.(map[string]any)
		object = m[k]
	}
	s, _ := object.(string)
	return s
}

// metricSet is a scrape: series, as they are written, and their values.
type metricSet map[string]float64

// scrape reads the gateway's metrics.
func (h *house) scrape(ctx context.Context) (metricSet, error) {
	code, body, err := h.get(ctx, "http://"+h.gateway.OpsAddr()+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("scrape: HTTP %d", code)
	}
	m := metricSet{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
				m[line[:i]] = v
			}
		}
	}
	return m, lines.Err()
}

// sum adds up the series of a name that have all the labels, each given as
// name="value".
func (m metricSet) sum(name string, labels ...string) float64 {
	var total float64
	for series, v := range m {
		base, rest, _ := strings.Cut(series, "{")
		if base != name {
			continue
		}
		list := "," + strings.TrimSuffix(rest, "}") + ","
		match := !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(list, ","+l+",") })
		if match {
			total += v
		}
	}
	return total
}
