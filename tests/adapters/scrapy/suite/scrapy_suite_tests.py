"""Which of Scrapy's own tests run on the adapter, which are skipped and why, and how many must pass."""

# Those in which a scheduler, a duplicate filter, a pipeline, a middleware or an engine matters.
MODULES = (
    "test_addons",
    "test_closespider",
    "test_contracts",
    "test_core_scraper",
    "test_crawl",
    "test_crawler",
    "test_crawler_runners",
    "test_downloadermiddleware",
    "test_downloadermiddleware_retry",
    "test_downloadermiddleware_redirect",
    "test_downloadermiddleware_redirect_metarefresh",
    "test_downloadermiddleware_robotstxt",
    "test_downloadermiddleware_stats",
    "test_downloaderslotssettings",
    "test_dupefilters",
    "test_engine",
    "test_engine_close_spider",
    "test_engine_download",
    "test_engine_loop",
    "test_engine_stop_download_bytes",
    "test_engine_stop_download_headers",
    "test_extension_periodic_log",
    "test_extension_telnet",
    "test_extension_throttle",
    "test_logstats",
    "test_pipeline_crawl",
    "test_pipeline_files",
    "test_pipeline_images",
    "test_pipeline_media",
    "test_pipelines",
    "test_request_attribute_binding",
    "test_request_cb_kwargs",
    "test_request_left",
    "test_scheduler",
    "test_scheduler_base",
    "test_signals",
    "test_spider",
    "test_spider_crawl",
    "test_spider_sitemap",
    "test_spider_start",
    "test_spidermiddleware",
    "test_spidermiddleware_base",
    "test_spidermiddleware_depth",
    "test_spidermiddleware_httperror",
    "test_spidermiddleware_output_chain",
    "test_spidermiddleware_process_start",
    "test_spidermiddleware_referer",
    "test_spidermiddleware_start",
    "test_spiderstate",
    "test_stats",
    "test_utils_request",
)

_START = "start requests are filtered, so that not every process crawls them; Scrapy does not filter them"
_ORDER = "of one priority, the oldest request comes first, and start requests have no queue of their own"
_FILTER = "tests the filter of the default settings, which is the adapter's here: the frontier filters"
_SECONDS = "compares seconds, which a busy machine spoils; the adapter's own tests measure delays"

# Each test that does not hold for the adapter, with the reason.
SKIPPED = {
    "tests/test_crawl.py::TestCrawl::test_fixed_delay": _SECONDS,
    "tests/test_crawl.py::TestCrawl::test_randomized_delay": _SECONDS,
    "tests/test_crawl.py::TestCrawl::test_start_dupes": _START,
    "tests/test_downloaderslotssettings.py::test_delay": "the frontier spaces hosts; slots of other names "
    "are spaced by the downloader alone, in addition",
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_dupefilter_path": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_filter": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_fingerprints_deprecation": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_request_fingerprint": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_seenreq_truncated": _FILTER,
    "tests/test_engine.py::TestEngine::test_crawler": _START,
    "tests/test_engine_close_spider.py::test_exception_scheduler": "deletes an attribute of Scrapy's own",
    "tests/test_engine_loop.py::TestRequestSendOrder::test_default": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_lazy": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_lifo_start": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_shared_queues": _ORDER,
    "tests/test_engine_stop_download_bytes.py::TestBytesReceivedEngine::test_crawler": _START,
    "tests/test_engine_stop_download_headers.py::TestHeadersReceivedEngine::test_crawler": _START,
    "tests/test_pipelines.py::TestCustomPipelineManager::test_integration_no_async_not_subclass": "calls "
    "the classes of pipelines without from_crawler",
    "tests/test_scheduler.py::TestIntegrationWithDownloaderAwareInMemory::"
    "test_integration_downloader_aware_priority_queue": _START,
}

# How many must pass. It may only rise.
FLOOR = 1056
