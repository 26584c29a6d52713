-- A database of its own for what playbooks load; its role does not reach Callboard's log.
CREATE ROLE warehouse LOGIN PASSWORD 'warehouse';
CREATE DATABASE warehouse OWNER warehouse;
REVOKE CONNECT ON DATABASE noetl FROM PUBLIC;
