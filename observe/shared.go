package observe

import "github.com/prometheus/client_golang/prometheus"

// sharedCollector reads what a fleet shares once for each scrape.
type sharedCollector struct {
	read                 func() SharedStats
	results, use, offset *prometheus.Desc
}

func newSharedCollector(read func() SharedStats) *sharedCollector {
	return &sharedCollector{
		read:    read,
		results: prometheus.NewDesc("watchword_shared_answers_total", "Look-ups in the shared store, calls to it that failed, and answers given to it, by what came of them.", []string{"result"}, nil),
		use:     prometheus.NewDesc("watchword_shared_in_use", "1 while the shared store is in use; 0 while it does not answer or its clock is off.", nil, nil),
		offset:  prometheus.NewDesc("watchword_shared_clock_offset_seconds", "The clock of the shared store less ours, when they were last compared.", nil, nil),
	}
}

func (c *sharedCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.results, c.use, c.offset} {
		to <- d
	}
}

func (c *sharedCollector) Collect(to chan<- prometheus.Metric) {
	s, use := c.read(), 0.0
	if s.InUse {
		use = 1
	}
	to <- prometheus.MustNewConstMetric(c.use, prometheus.GaugeValue, use)
	to <- prometheus.MustNewConstMetric(c.offset, prometheus.GaugeValue, s.ClockOffset.Seconds())
	for result, n := range s.Results {
		to <- prometheus.MustNewConstMetric(c.results, prometheus.CounterValue, float64(n), label(result))
	}
}
